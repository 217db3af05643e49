// The matrix: a row for who connects, a column for who accepts. It stays
// readable where a map has too many edges.
const canvas = document.getElementById('canvas');
let cells = null;

function matrixOrder() {
  const seen = new Set(), order = [];
  for (const s of layout.spots) if (!seen.has(s.node)) { seen.add(s.node); order.push(nodes[s.node]); }
  const device = n => n.deviceNamespace || '\uffff';
  const devices = [...new Set(nodes.map(device))];
  if (layout.style === 'layers') order.sort((a, b) => devices.indexOf(device(a)) - devices.indexOf(device(b)));
  return order;
}

function updateMatrix(shown) {
  const css = getComputedStyle(document.documentElement), colour = name => css.getPropertyValue(name).trim();
  const order = matrixOrder(), n = order.length, at = new Map(order.map((x, i) => [x, i]));
  const box = document.getElementById('matrix').getBoundingClientRect();
  const room = n > 120 ? 130 : 150;
  const cell = Math.max(n > 120 ? 9 : 12, Math.min(30, Math.floor((Math.min(box.width, box.height) - room - 20) / n)));
  const side = room + n * cell + 20, scale = window.devicePixelRatio || 1;
  canvas.width = side * scale;
  canvas.height = side * scale;
  canvas.style.width = canvas.style.height = side + 'px';
  const c = canvas.getContext('2d');
  c.scale(scale, scale);
  c.font = `${Math.min(13, cell - 0.5)}px system-ui, "DejaVu Sans", sans-serif`;
  c.textBaseline = 'middle';
  const pick = state.select ? byId.get(state.select) : null;
  for (let i = 0; i < n; i++) {
    const border = i > 0 && order[i].deviceNamespace !== order[i - 1].deviceNamespace;
    c.strokeStyle = border ? colour('--ink') : colour('--line');
    c.lineWidth = border ? 1 : 0.5;
    c.beginPath();
    c.moveTo(border ? 0 : room, room + i * cell); c.lineTo(room + n * cell, room + i * cell);
    c.moveTo(room + i * cell, border ? 0 : room); c.lineTo(room + i * cell, room + n * cell);
    c.stroke();
    c.fillStyle = order[i] === pick ? colour('--focus') : colour('--ink');
    const name = order[i].name.length > 24 ? order[i].name.slice(0, 23) + '…' : order[i].name;
    c.textAlign = 'right';
    c.fillText(name, room - 6, room + (i + 0.5) * cell, room - 10);
    c.save();
    c.translate(room + (i + 0.5) * cell, room - 6);
    c.rotate(-Math.PI / 2);
    c.textAlign = 'left';
    c.fillText(name, 0, 0, room - 10);
    c.restore();
  }
  const lit = selected(shown);
  cells = { order, room, cell, at: new Map() };
  for (const e of shown) {
    const x = at.get(e.target), y = at.get(e.source);
    cells.at.set(y * n + x, e);
    c.globalAlpha = lit && !lit.includes(e) ? 0.25 : 1;
    c.fillStyle = colour({ onesided: '--bad', refused: '--bad', audit: '--focus', unnamed: '--line' }[e.kind] || '--in');
    const inset = cell > 10 ? 1.5 : 0.5;
    c.fillRect(room + x * cell + inset, room + y * cell + inset, cell - 2 * inset, cell - 2 * inset);
  }
  c.globalAlpha = 1;
}

function cellAt(ev) {
  if (!cells) return null;
  const box = canvas.getBoundingClientRect();
  const x = Math.floor((ev.clientX - box.left - cells.room) / cells.cell), y = Math.floor((ev.clientY - box.top - cells.room) / cells.cell);
  if (x < 0 && y >= 0) return cells.order[y];
  if (y < 0 && x >= 0) return cells.order[x];
  return cells.at.get(y * cells.order.length + x);
}
canvas.addEventListener('mousemove', ev => { const e = cellAt(ev); tip(e && e.flows ? ev : null, e); });
canvas.addEventListener('mouseleave', () => tip(null));
canvas.addEventListener('click', ev => { const e = cellAt(ev); if (e && e.flows) chooseEdge(e); else choose(e ? e.id : ''); });
