// The panel: what is selected, its rules with their places, its neighbours.
const panel = document.getElementById('panel');

function el(tag, properties, parent, text) {
  const e = Object.assign(document.createElement(tag), {});
  for (const [k, v] of Object.entries(properties || {})) {
    if (k.startsWith('aria-')) e.setAttribute(k, v); else e[k] = v;
  }
  if (text !== undefined) e.textContent = text;
  parent?.append(e);
  return e;
}

function peerButton(parent, n) {
  return el('button', { className: 'peer', onclick: () => choose(n.id) }, parent, n.name);
}

function edgeButton(parent, e) {
  el('button', { className: 'peer', onclick: () => chooseEdge(e) }, parent, `${e.source.name} → ${e.target.name}`);
}

function countOf(parent, id, bad) {
  if (data.live && counts[id] !== undefined) el('span', { className: 'hits' + (bad && counts[id] ? ' bad' : '') }, parent, counts[id].toLocaleString('en'));
}

// ruleWords says which rule, and where it is.
function ruleWords(parent, id) {
  countOf(parent, id);
  const bare = id.replace(/ refuses$/, '');
  el('span', {}, parent, id === 'unmanaged' ? 'no rules there' : id === 'same' ? 'same namespace' : id);
  if (place(bare)) el('div', { className: 'place' }, parent, place(bare));
}

function showEdge(list, e, peer) {
  const li = el('li', {}, list);
  if (peer) peerButton(li, peer); else { peerButton(li, e.source); el('span', {}, li, ' → '); peerButton(li, e.target); }
  if (e.hits) el('span', { className: 'hits' }, li, hitWords(e));
  for (const f of shownFlows(e)) {
    const d = el('div', {}, li);
    el('span', {}, d, flowWords(f));
    if (f.audit) el('span', { className: 'badge' }, d, 'audit: will be refused');
    ruleLine(d, f.connect, f.accept);
  }
  for (const o of e.oneSided) {
    const d = el('div', { className: 'bad' }, li, `${traffic(o)}: refused by ${o.refuses}`);
    ruleLine(d, o.allows, o.refuses);
  }
  for (const r of e.refused) {
    const d = el('div', { className: r.audit ? 'soft' : 'bad' }, li, `${refusedWords(r)}, last ${when(r.last)}`);
    el('div', { className: 'place' }, d, place(r.by) ? `${r.by}  ${place(r.by)}` : r.by);
  }
}

function ruleLine(parent, ...ids) {
  for (const id of ids) {
    if (id === 'unmanaged') continue;
    const line = el('div', { className: 'place' }, parent, place(id) ? `${id}  ${place(id)}` : id);
    countOf(line, id);
  }
}

function updatePanel(shown) {
  panel.replaceChildren();
  if (state.edge) {
    const e = edges.find(x => x.from + '>' + x.to === state.edge);
    if (e) {
      el('h2', {}, panel, `${e.source.name} → ${e.target.name}`);
      showEdge(el('ul', {}, panel), e);
      return;
    }
  }
  if (!state.select) { help(); return; }
  const n = byId.get(state.select);
  const h = el('h2', {}, panel, n.name);
  if (n.audit) el('span', { className: 'badge' }, h, 'audit');
  el('div', { className: 'soft' }, panel, { namespace: 'socket namespace', template: 'template: one socket namespace each', unmanaged: 'sockets that no socket namespace claims', group: 'group of addresses', address: 'addresses', elsewhere: 'addresses that the other end’s rules do not name' }[n.kind] + (n.deviceNamespace ? ` in ${n.deviceNamespace}` : ''));
  if (n.file) el('div', { className: 'place' }, panel, `${short(n.file)}:${n.line}`);
  for (const m of n.members || []) el('div', {}, panel, m);
  if (n.addresses?.length) el('div', { className: 'soft' }, panel, n.addresses.slice(0, 8).join(', ') + (n.addresses.length > 8 ? ' …' : ''));
  if (n.refused) el('div', { className: 'bad' }, panel, `${n.refused.toLocaleString('en')} decisions ${n.audit ? 'would have refused' : 'refused'}`);
  const into = n.edges.filter(e => e.target === n && shown.includes(e)), out = n.edges.filter(e => e.source === n && shown.includes(e));
  section(`Reached by ${into.length}`, 'in', into, e => e.source);
  section(`May reach ${out.length}`, 'out', out, e => e.target);
  if (n.rules.length) {
    el('h3', {}, panel, 'Rules');
    const ul = el('ul', {}, panel);
    for (const r of n.rules) {
      const li = el('li', {}, ul);
      countOf(li, r.id, r.action === 'deny');
      el('span', { className: r.action === 'deny' ? 'bad' : '' }, li, r.words);
      el('div', { className: 'place' }, li, `${r.hook}#${r.id.split('#')[1]}  ${short(r.file)}:${r.line}`);
    }
    for (const hook of ['connect', 'accept']) if (counts[`${n.id} ${hook} default`]) {
      const li = el('li', {}, ul);
      countOf(li, `${n.id} ${hook} default`, true);
      el('span', {}, li, `default of ${hook}`);
    }
  }
}

function section(title, cls, list, peer) {
  el('h3', { className: cls }, panel, title);
  const ul = el('ul', {}, panel);
  for (const e of list.slice(0, 60)) showEdge(ul, e, peer(e));
  if (list.length > 60) el('li', { className: 'soft' }, ul, `and ${list.length - 60} more: see the list`);
}

function help() {
  el('h2', {}, panel, 'Nothing selected');
  el('p', { className: 'soft' }, panel, 'Click a name to see its rules and neighbours. An arrow goes from who connects to who accepts; what is drawn is allowed by rules at both ends.');
  const ul = el('ul', {}, panel);
  for (const [key, what] of [['/', 'search: web 5432, udp/53, policy.yaml:12, refused'], ['Tab', 'from name to name, Enter selects'], ['Esc', 'back'], ['m x l', 'map, matrix, list'], ['+ − 0', 'zoom, fit'], ['t', 'light or dark']]) {
    const li = el('li', {}, ul);
    el('kbd', {}, li, key);
    el('span', {}, li, ' ' + what);
  }
  const busiest = nodes.filter(n => !n.outside && n.refused).sort((a, b) => b.refused - a.refused).slice(0, 12);
  if (busiest.length) {
    el('h3', { className: 'bad' }, panel, 'Refused most');
    const list = el('ul', {}, panel);
    for (const n of busiest) { const li = el('li', {}, list); el('span', { className: 'hits bad' }, li, n.refused.toLocaleString('en')); peerButton(li, n); }
  }
  const tried = edges.filter(e => e.refusals).sort((a, b) => b.refusals - a.refusals);
  if (tried.length) {
    el('h3', { className: 'bad' }, panel, `Refused between: ${tried.length}`);
    const list = el('ul', {}, panel);
    for (const e of tried.slice(0, 12)) { const li = el('li', {}, list); el('span', { className: 'hits bad' }, li, e.refusals.toLocaleString('en')); edgeButton(li, e); }
  }
  const onesided = edges.filter(e => e.oneSided.length && !e.flows.length);
  if (onesided.length) {
    el('h3', { className: 'bad' }, panel, `One-sided: ${onesided.length}`);
    const list = el('ul', {}, panel);
    for (const e of onesided.slice(0, 12)) showEdge(list, e);
  }
}
