// The list: a row for each flow, for readers, printers and screen readers.
const listBox = document.getElementById('list');
let sortBy = 'from', rows = 400;

function updateList(shown) {
  const lit = selected(shown) || shown;
  const all = lit.flatMap(e => [
    ...shownFlows(e).map(f => ({ e, from: e.source.name, to: e.target.name, traffic: flowWords(f), connect: f.connect, accept: f.accept, kind: f.audit ? 'audit' : '' })),
    ...e.refused.map(r => ({ e, from: e.source.name, to: e.target.name, traffic: refusedWords(r), kind: 'refused',
      connect: r.by.includes(' connect') ? r.by + ' refuses' : '', accept: r.by.includes(' connect') ? '' : r.by + ' refuses' })),
    ...e.oneSided.map(o => ({ e, from: e.source.name, to: e.target.name, traffic: traffic(o), kind: 'onesided',
      connect: o.allows.includes(' connect') ? o.allows : o.refuses + ' refuses', accept: o.allows.includes(' accept') ? o.allows : o.refuses + ' refuses' })),
  ]);
  all.sort((a, b) => a[sortBy].localeCompare(b[sortBy], undefined, { numeric: true }) || a.to.localeCompare(b.to));
  const table = el('table');
  const head = el('tr', {}, table.createTHead());
  for (const [key, title] of [['from', 'From'], ['to', 'To'], ['traffic', 'Traffic'], ['connect', 'Allowed by its rule'], ['accept', 'and by its rule']]) {
    const th = el('th', { 'aria-sort': key === sortBy ? 'ascending' : 'none' }, head);
    el('button', { onclick: () => { sortBy = key; update(); } }, th, title + (key === sortBy ? ' ↓' : ''));
  }
  const body = table.createTBody();
  for (const r of all.slice(0, rows)) {
    const tr = el('tr', { className: r.kind }, body);
    peerButton(el('td', {}, tr), r.e.source);
    peerButton(el('td', {}, tr), r.e.target);
    el('td', {}, tr, r.traffic + (r.kind === 'audit' ? ' (audit)' : ''));
    for (const id of [r.connect, r.accept]) ruleWords(el('td', {}, tr), id);
  }
  listBox.replaceChildren(table);
  if (all.length > rows) el('button', { onclick: () => { rows += 2000; update(); } }, listBox, `Show more of ${all.length}`);
}
