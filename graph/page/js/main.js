// Events, and the views when the state changes.
let current = [];

function update() {
  current = visible();
  writeHash();
  document.documentElement.dataset.theme = state.theme;
  for (const v of ['map', 'matrix', 'list']) {
    document.getElementById(v).hidden = v !== state.view;
    document.getElementById('view-' + v).setAttribute('aria-selected', v === state.view);
  }
  for (const k of filters) document.getElementById(k).checked = state.show.has(k);
  const box = document.getElementById('query');
  if (box.value !== state.query) box.value = state.query;
  if (state.view === 'map') updateMap(current);
  if (state.view === 'matrix') updateMatrix(current);
  if (state.view === 'list') updateList(current);
  updatePanel(current);
  const namespaces = nodes.filter(n => n.rules && !n.outside && n.kind !== 'unmanaged').length;
  const live = data.live ? ` · counted until ${when(data.live.at)}, refusals since ${when(data.live.since)}` +
    (data.live.unplaced ? `, ${data.live.unplaced.toLocaleString('en')} of them between ends that are not known` : '') : '';
  document.getElementById('summary').textContent = `${namespaces} socket namespaces · ${current.length} of ${edges.length} edges shown${live}`;
}

const when = t => t.slice(0, 19).replace('T', ' ');

function choose(id) { state.select = id; state.edge = ''; tip(null); update(); }
function chooseEdge(e) { state.edge = e.from + '>' + e.to; state.select = ''; tip(null); update(); }

function tip(ev, e) {
  const t = document.getElementById('tip-text');
  t.hidden = !ev;
  if (!ev) return;
  t.textContent = `${e.source.name} → ${e.target.name}\n` + [...shownFlows(e).map(flowWords), ...e.oneSided.map(o => `${traffic(o)}: refused by ${o.refuses}`),
    ...(e.hits ? [`${hitWords(e)} times`] : []), ...e.refused.map(r => `${refusedWords(r)} by ${r.by}`)].slice(0, 8).join('\n');
  const box = document.getElementById('stage').getBoundingClientRect();
  t.style.left = Math.min(ev.clientX - box.left + 14, box.width - 300) + 'px';
  t.style.top = ev.clientY - box.top + 16 + 'px';
}

for (const v of ['map', 'matrix', 'list']) document.getElementById('view-' + v).onclick = () => { state.view = v; update(); };
for (const k of filters) {
  document.getElementById(k).onchange = ev => { if (ev.target.checked) state.show.add(k); else state.show.delete(k); update(); };
}
document.getElementById('query').oninput = ev => { state.query = ev.target.value; update(); };
document.getElementById('theme').onclick = () => {
  const dark = state.theme ? state.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  state.theme = dark ? 'light' : 'dark';
  update();
};
document.addEventListener('keydown', ev => {
  if (ev.key === 'Escape') { if (state.select || state.edge) choose(''); else { state.query = ''; update(); } document.activeElement.blur(); return; }
  if (ev.target.matches('input') || ev.ctrlKey || ev.metaKey || ev.altKey) return;
  const act = {
    '/': () => document.getElementById('query').focus(), m: () => { state.view = 'map'; update(); }, x: () => { state.view = 'matrix'; update(); },
    l: () => { state.view = 'list'; update(); }, '+': () => zoomBy(1.4), '-': () => zoomBy(1 / 1.4), 0: fit, t: () => document.getElementById('theme').click(),
  }[ev.key];
  if (act) { ev.preventDefault(); act(); }
});
window.addEventListener('hashchange', () => { readHash(); update(); });
window.addEventListener('resize', () => { fit(); if (state.view === 'matrix') update(); });

document.getElementById('refused').parentElement.hidden = !data.live;
readHash();
drawMap();
update();
