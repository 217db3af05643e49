// What is looked at; kept in the address, so that a view can be sent to somebody.
const filters = ['refused', 'onesided', 'unnamed', 'audit'];
const usual = ['audit', 'onesided', 'refused'];
const state = { view: 'map', query: '', select: '', edge: '', show: new Set(usual), theme: '' };

function readHash() {
  const p = new URLSearchParams(location.hash.slice(1));
  state.view = ['map', 'matrix', 'list'].includes(p.get('view')) ? p.get('view') : 'map';
  state.query = p.get('q') || '';
  state.select = byId.has(p.get('select')) ? p.get('select') : '';
  state.edge = p.get('edge') || '';
  state.show = new Set((p.get('show') ?? usual.join()).split(',').filter(Boolean));
  state.theme = p.get('theme') || '';
}

function writeHash() {
  const p = new URLSearchParams();
  if (state.view !== 'map') p.set('view', state.view);
  if (state.query) p.set('q', state.query);
  if (state.select) p.set('select', state.select);
  if (state.edge) p.set('edge', state.edge);
  if ([...state.show].sort().join() !== usual.join()) p.set('show', [...state.show].join());
  if (state.theme) p.set('theme', state.theme);
  history.replaceState(null, '', '#' + p);
}

const words = () => state.query.toLowerCase().split(/\s+/).filter(Boolean);

// visible returns the edges that the filters leave.
function visible() {
  const w = words();
  return edges.filter(e => (!e.kind || state.show.has(e.kind)) && edgeMatches(e, w));
}

// selected returns the edges of what is selected, or null.
function selected(shown) {
  if (state.edge) return shown.filter(e => e.from + '>' + e.to === state.edge);
  if (state.select) return byId.get(state.select).edges.filter(e => shown.includes(e));
  return null;
}

// shownFlows leaves out what the filters do, unless the edge has nothing else.
function shownFlows(e) {
  const named = e.flows.filter(f => f.named);
  return state.show.has('unnamed') || !e.named ? e.flows : named;
}
