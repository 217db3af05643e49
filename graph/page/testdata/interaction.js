// Runs in the page of shop.yaml with #q=5432 and says what it finds.
const report = [];
const shown = () => [...document.querySelectorAll('#edges .edge')].map(p => edges[p.dataset.edge].from + '>' + edges[p.dataset.edge].to).sort();
const text = id => document.getElementById(id).textContent;
function check(what, got, want) {
  got = JSON.stringify(got); want = JSON.stringify(want);
  report.push(got === want ? 'ok ' + what : `${what}: got ${got}, want ${want}`);
}
function press(key, target = document.body) { target.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true })); }
function search(q) { const box = document.getElementById('query'); box.value = q; box.dispatchEvent(new Event('input')); }
const node = id => document.querySelector(`.node[data-id="${id}"]`);
try {
  check('the address has the query', document.getElementById('query').value, '5432');
  check('by port', shown(), ['admin>db', 'api>db', 'worker>db']);
  check('others are quiet', [scene.classList.contains('quiet'), node('cache').classList.contains('lit'), node('db').classList.contains('lit')], [true, false, true]);
  search('udp/53 api');
  check('by protocol, port and name', shown(), ['api>dns']);
  search('shop.yaml:21');
  check('by place', shown(), ['api>cache']);
  search('tcp/6379');
  check('by traffic', shown(), ['api>cache', 'worker>cache']);
  search('refused worker');
  check('by refusal', shown(), ['worker>cache', 'worker>dns', 'worker>elsewhere']);
  search('nobody-has-this');
  check('nothing found', shown(), []);
  search('');
  const all = shown().length;
  document.getElementById('onesided').click();
  check('without one-sided', all - shown().length, 1);
  document.getElementById('onesided').click();
  document.getElementById('unnamed').click();
  check('with what any allows', shown().length > all, true);
  document.getElementById('unnamed').click();
  check('the filters are back', shown().length, all);

  const label = (from, to) => [...document.querySelectorAll('.edge-label')].find(t => edges[t.dataset.edge].from === from && edges[t.dataset.edge].to === to).textContent;
  check('hits on an edge', [label('api', 'cache'), label('worker', 'queue')], ['tcp/6379 (96k)', 'tcp/5672 (907)']);
  check('what was refused', [label('worker', 'cache'), label('web', 'admin')], ['tcp/6379 ✕118', 'tcp/8080 (≤48k) ✕21']);
  document.getElementById('refused').click();
  check('without what was refused', [all - shown().length, shown().includes('worker>cache')], [2, false]);
  document.getElementById('refused').click();
  check('what is refused most', text('panel').includes('118worker → cache'), true);
  node('db').dispatchEvent(new MouseEvent('click', { bubbles: true }));
  check('select', [location.hash, node('db').classList.contains('selected')], ['#select=db', true]);
  check('the panel has both rules', [text('panel').includes('api connect#1  shop.yaml:20'), text('panel').includes('db accept#1  shop.yaml:49')], [true, true]);
  check('the panel has the neighbours', [...document.querySelectorAll('#panel .peer')].map(b => b.textContent), ['api', 'admin', 'worker', 'monitor']);
  check('hits', text('panel').includes('48,190'), true);
  check('refusals', [text('panel').includes('3 decisions refused'), node('db').textContent.includes('3 refused'), node('admin').textContent], [true, true, 'adminaudit: 21']);
  check('edges of it are lit', [...document.querySelectorAll('#edges .edge.lit')].length, 4);
  document.querySelector('#panel .peer').click();
  check('a neighbour is a link', state.select, 'api');
  press('Escape');
  check('Escape', [state.select, location.hash], ['', '']);
  press('Enter', node('web'));
  check('Enter selects', state.select, 'web');
  press('Escape');
  node('cache').dispatchEvent(new MouseEvent('mouseenter'));
  check('hover', [...document.querySelectorAll('#edges .edge.lit')].length, 2);
  node('cache').dispatchEvent(new MouseEvent('mouseleave'));
  check('no hover', scene.classList.contains('quiet'), false);
  check('every name can be reached by Tab', [...document.querySelectorAll('.node')].every(n => n.tabIndex === 0 && n.getAttribute('aria-label')), true);

  press('l');
  check('list', [document.getElementById('list').hidden, document.getElementById('map').hidden], [false, true]);
  const row = [...document.querySelectorAll('#list tbody tr')].find(r => r.textContent.startsWith('apidb'));
  check('a row of the list', [...row.cells].map(c => c.textContent), ['api', 'db', 'tcp/5432', '48,190api connect#1shop.yaml:20', '51,002db accept#1shop.yaml:49']);
  search('cache');
  check('the list is filtered', [...document.querySelectorAll('#list tbody tr')].map(r => r.cells[2].textContent), ['tcp/6379', 'tcp/6379 refused 118×']);
  search('');
  press('x');
  check('matrix', [document.getElementById('matrix').hidden, canvas.width > 300, cells.at.size], [false, true, all]);
  const at = [cells.order.indexOf(byId.get('db')), cells.order.indexOf(byId.get('api'))], box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new MouseEvent('click', { clientX: box.left + cells.room + (at[0] + 0.5) * cells.cell, clientY: box.top + cells.room + (at[1] + 0.5) * cells.cell }));
  check('a cell selects its edge', [state.edge, document.querySelector('#panel h2').textContent], ['api>db', 'api → db']);
  press('m');
  press('t');
  check('theme', ['dark', 'light'].includes(document.documentElement.dataset.theme), true);
  const before = zoom.k;
  press('+');
  check('zoom', zoom.k > before, true);
  press('0');
  check('fit', Math.abs(zoom.k - before) < 1e-9, true);
} catch (e) {
  report.push('error: ' + e.stack);
}
const pre = document.createElement('pre');
pre.id = 'report';
pre.textContent = report.join('\n');
document.body.append(pre);
