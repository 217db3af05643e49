// The map: nodes, edges, zoom.
const svg = document.getElementById('svg'), scene = document.getElementById('scene');
const ways = new Map(layout.paths.map(p => [p.edge, p]));
const [left, top_, width, height] = layout.size;
let zoom = { k: 1, x: 0, y: 0 };

function draw(tag, attributes, parent, text) {
  const el = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
  if (text !== undefined) el.textContent = text;
  parent.append(el);
  return el;
}

// upright turns text on the left of a circle so that it can be read.
function upright(x, y, angle) {
  const flip = angle > 90 || angle < -90;
  return { transform: `translate(${x} ${y}) rotate(${flip ? angle - 180 : angle})`, 'text-anchor': flip ? 'end' : 'start' };
}

function spotsOf(index, role) {
  const list = layout.spots.filter(s => s.node === index);
  return list.find(s => s.role === role) || list[0];
}

// straightWay is the way of an edge that the layout left out.
function straightWay(e) {
  const a = spotsOf(e.source.index, 'source'), b = spotsOf(e.target.index, 'target');
  if (layout.style === 'circle') return `M${a.x},${a.y}Q0,0 ${b.x},${b.y}`;
  const right = b.x > a.x, x1 = a.x + (right ? 1 : -1) * a.width / 2, x2 = b.x - (right ? 1 : -1) * b.width / 2;
  if (a.x === b.x) return `M${a.x + a.width / 2},${a.y}C${a.x + a.width / 2 + 60},${a.y} ${b.x + b.width / 2 + 60},${b.y} ${b.x + b.width / 2},${b.y}`;
  return `M${x1},${a.y}C${(x1 + x2) / 2},${a.y} ${(x1 + x2) / 2},${b.y} ${x2},${b.y}`;
}

function drawMap() {
  scene.setAttribute('class', layout.style + (layout.paths.length > 600 ? ' busy' : ''));
  const frames = draw('g', {}, scene);
  for (const b of layout.boxes) {
    if (layout.style === 'layers') {
      draw('rect', { class: 'frame', x: b.x, y: b.y, width: b.width, height: b.height, rx: 14 }, frames);
      draw('text', { class: 'frame-label', x: b.x + 14, y: b.y + 18 }, frames, b.label);
    } else {
      draw('path', { class: 'arc level' + b.level, d: b.path }, frames);
      if (b.level === 1) draw('text', { class: 'group-label', ...upright(b.x, b.y, b.angle) }, frames, b.label);
      if (b.level === 0) {
        const upDown = Math.abs(Math.cos(b.angle * Math.PI / 180)) < 0.2;
        draw('text', { class: 'arc-label', x: b.x, y: b.y, 'text-anchor': upDown ? 'middle' : b.angle > 90 || b.angle < -90 ? 'end' : 'start' }, frames, b.label);
      }
    }
  }
  draw('g', { id: 'edges' }, scene);
  draw('g', { id: 'nodes' }, scene);
  draw('g', { id: 'labels' }, scene);
  for (const s of layout.spots) drawNode(s);
  fit();
}

function drawNode(s) {
  const n = nodes[s.node];
  const g = draw('g', {
    class: `node ${n.kind} ${n.outside ? 'outside' : ''} ${n.audit ? 'audit' : ''} ${n.refused ? 'refused' : ''}`, tabindex: 0, role: 'button',
    'data-id': n.id, 'aria-label': `${n.name}, ${n.kind}, ${n.edges.filter(e => e.target === n).length} in, ${n.edges.filter(e => e.source === n).length} out`,
  }, document.getElementById('nodes'));
  if (layout.style === 'circle') {
    draw('text', upright(s.x, s.y, s.angle), g, s.label);
    draw('title', {}, g, n.name);
  } else {
    draw('rect', { x: s.x - s.width / 2, y: s.y - 18, width: s.width, height: 36 }, g);
    const sub = n.audit ? (n.refused ? `audit: ${few(n.refused)}` : 'audit') : n.refused ? `${few(n.refused)} refused` : '';
    draw('text', { x: s.x, y: sub ? s.y - 5 : s.y }, g, n.name);
    if (sub) draw('text', { x: s.x, y: s.y + 10, class: n.refused && !n.audit ? 'sub bad' : 'sub' }, g, sub);
  }
  g.addEventListener('click', () => choose(n.id === state.select ? '' : n.id));
  g.addEventListener('keydown', ev => { if (ev.key === 'Enter' || ev.key === ' ') { ev.preventDefault(); choose(n.id); } });
  g.addEventListener('mouseenter', () => light(n.edges, n));
  g.addEventListener('focus', () => light(n.edges, n));
  g.addEventListener('mouseleave', () => light(null));
  g.addEventListener('blur', () => light(null));
}

function updateMap(shown) {
  const layer = document.getElementById('edges'), labels = document.getElementById('labels');
  layer.replaceChildren();
  labels.replaceChildren();
  const label = layout.style === 'layers';
  for (const e of shown) {
    const way = ways.get(e.index);
    if (e.source === e.target && !way) continue;
    const d = way ? way.path : straightWay(e);
    const path = draw('path', { class: `edge ${e.kind} ${e.refusals ? 'refusing' : ''}`, d, 'data-edge': e.index }, layer);
    if (e.hits && e.hits.n) path.style.setProperty('--busy', (Math.log10(e.hits.n + 1) * 0.55).toFixed(2));
    if (!label) continue;
    const area = draw('path', { class: 'hit-area', d }, layer);
    area.addEventListener('mouseenter', ev => { light([e]); tip(ev, e); });
    area.addEventListener('mouseleave', () => { light(null); tip(null); });
    area.addEventListener('click', () => chooseEdge(e));
    if (way) draw('text', { class: `edge-label ${e.kind} ${e.refusals ? 'refusing' : ''}`, x: way.labelX, y: way.labelY, 'data-edge': e.index }, labels, edgeLabel(e));
  }
  const w = words();
  const names = w.filter(x => !protocolWord.test(x) && x !== 'refused' && x !== 'audit');
  for (const g of document.querySelectorAll('.node')) {
    const n = byId.get(g.dataset.id);
    g.classList.toggle('found', names.length > 0 && names.some(x => nodeMatches(n, x)));
    g.classList.toggle('selected', n.id === state.select);
    g.classList.toggle('unused', layout.style === 'layers' && (n.outside || n.kind === 'unmanaged') && !n.edges.some(e => shown.includes(e)));
  }
  light(null);
}

// light brings some edges to the front; null goes back to what is selected or
// searched for.
function light(list, node) {
  const shown = current;
  let about = node || (state.select && !list ? byId.get(state.select) : null);
  if (list) list = list.filter(e => shown.includes(e));
  else list = selected(shown) || (state.query ? shown : null);
  scene.classList.toggle('quiet', list !== null);
  const on = new Set(list || []), near = new Set();
  for (const e of on) { near.add(e.from); near.add(e.to); }
  if (about) near.add(about.id);
  for (const el of scene.querySelectorAll('[data-edge]')) {
    const e = edges[el.dataset.edge], lit = on.has(e);
    el.classList.toggle('lit', lit);
    el.classList.toggle('to-it', lit && !!about && e.target === about && !e.kind);
    el.classList.toggle('from-it', lit && !!about && e.source === about && !e.kind);
  }
  for (const g of scene.querySelectorAll('.node')) g.classList.toggle('lit', near.has(g.dataset.id) || g.classList.contains('found'));
}

function transform() { scene.setAttribute('transform', `translate(${zoom.x} ${zoom.y}) scale(${zoom.k})`); }

function fit() {
  const box = svg.getBoundingClientRect();
  zoom.k = Math.min(box.width / width, box.height / height, 1.6) || 1;
  zoom.x = (box.width - width * zoom.k) / 2 - left * zoom.k;
  zoom.y = (box.height - height * zoom.k) / 2 - top_ * zoom.k;
  transform();
}

function zoomBy(factor, x, y) {
  const box = svg.getBoundingClientRect();
  x ??= box.width / 2;
  y ??= box.height / 2;
  const k = Math.min(8, Math.max(0.05, zoom.k * factor));
  zoom.x = x - (x - zoom.x) * k / zoom.k;
  zoom.y = y - (y - zoom.y) * k / zoom.k;
  zoom.k = k;
  transform();
}

svg.addEventListener('wheel', ev => {
  ev.preventDefault();
  const box = svg.getBoundingClientRect();
  zoomBy(Math.exp(-ev.deltaY * 0.0015), ev.clientX - box.left, ev.clientY - box.top);
}, { passive: false });
let grip = null;
svg.addEventListener('pointerdown', ev => { if (!ev.target.closest('.node,.hit-area')) { grip = { x: ev.clientX - zoom.x, y: ev.clientY - zoom.y, moved: false }; svg.setPointerCapture(ev.pointerId); svg.classList.add('drag'); } });
svg.addEventListener('pointermove', ev => { if (grip) { grip.moved = true; zoom.x = ev.clientX - grip.x; zoom.y = ev.clientY - grip.y; transform(); } });
svg.addEventListener('pointerup', () => { if (grip && !grip.moved) choose(''); grip = null; svg.classList.remove('drag'); });
document.getElementById('zoom-in').onclick = () => zoomBy(1.4);
document.getElementById('zoom-out').onclick = () => zoomBy(1 / 1.4);
document.getElementById('zoom-fit').onclick = fit;
