// The graph as Go wrote it, with what the views look up often.
const data = JSON.parse(document.getElementById('data').textContent);
const layout = data.layout;
const rules = new Map(data.rules.map(r => [r.id, r]));
const counts = data.live ? data.live.decisions : {};
const nodes = data.nodes, edges = data.edges;
const byId = new Map(nodes.map((n, i) => { n.index = i; n.edges = []; return [n.id, n]; }));

for (const n of nodes) {
  n.name = { template: n.id + '/*', unmanaged: 'unmanaged', elsewhere: 'anywhere else' }[n.kind] || n.id;
  n.outside = ['group', 'address', 'elsewhere'].includes(n.kind);
  n.rules = [];
  n.refused = 0;
}
for (const r of data.rules) {
  byId.get(r.namespace)?.rules.push(r);
}
// What was refused: by rules that deny, and by defaults where they do.
for (const [id, count] of Object.entries(counts)) {
  const n = byId.get(id.split(' ')[0]);
  if (n && (rules.has(id) ? rules.get(id).action === 'deny' : id.endsWith(' default'))) n.refused += count;
}
edges.forEach((e, i) => {
  e.index = i;
  e.flows ||= [];
  e.oneSided ||= [];
  e.refused ||= [];
  for (const r of e.refused) { r.protocols = [r.protocol]; r.ports = r.port ? [String(r.port)] : undefined; }
  e.refusals = e.refused.reduce((sum, r) => sum + r.count, 0);
  const named = e.flows.filter(f => f.named);
  e.named = named.length > 0 || e.oneSided.length > 0 || e.refused.length > 0;
  e.kind = named.some(f => !f.audit) ? '' : e.oneSided.length ? 'onesided' : named.length ? 'audit' : e.refused.length ? 'refused' : 'unnamed';
  e.source = byId.get(e.from);
  e.target = byId.get(e.to);
  e.source.edges.push(e);
  if (e.target !== e.source) e.target.edges.push(e);
});

// traffic is "tcp/80,443", "udp", "port 53" or "everything".
function traffic(f) {
  const protocols = f.protocols.length === 5 ? '' : f.protocols.join(',');
  if (!f.ports) return protocols || 'everything';
  const ports = f.ports.join(',');
  return protocols ? protocols + '/' + ports : 'port ' + ports;
}

function flowWords(f) {
  const some = list => list.slice(0, 3).join(', ') + (list.length > 3 ? `, ${list.length - 3} more` : '');
  return traffic(f) + (f.fromAddresses ? ' from ' + some(f.fromAddresses) : '') + (f.toAddresses ? ' over ' + some(f.toAddresses) : '');
}

// few is a number in few letters: 820, 48k, 1.2M.
function few(n) {
  for (const [size, letter] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (n >= size * 10) return Math.floor(n / size) + letter;
    if (n >= size) return (Math.floor(n / size * 10) / 10) + letter;
  }
  return String(n);
}

const hitWords = e => (e.hits.most ? 'at most ' : '') + e.hits.n.toLocaleString('en');
const refusedWords = r => `${traffic(r)} ${r.audit ? 'would be refused' : 'refused'} ${r.count.toLocaleString('en')}×`;

function edgeLabel(e) {
  const named = e.flows.filter(f => f.named);
  const words = [...new Set((e.kind === 'refused' ? e.refused : e.kind === 'onesided' ? e.oneSided : named.length ? named : e.flows).map(traffic))];
  let label = words.length > 2 ? words.slice(0, 2).join(' ') + ' …' : words.join(' ');
  if (e.hits && e.hits.n) label += ` (${e.hits.most ? '≤' : ''}${few(e.hits.n)})`;
  if (e.refusals) label += ` ✕${few(e.refusals)}`;
  return label;
}

// Files are told by what differs in their paths.
const files = [...new Set(data.rules.map(r => r.file))];
let common = files.length ? files[0].lastIndexOf('/') + 1 : 0;
while (common > 0 && !files.every(f => f.startsWith(files[0].slice(0, common)))) common = files[0].lastIndexOf('/', common - 2) + 1;
const short = file => file.slice(common);

function place(id) {
  const r = rules.get(id);
  return r ? `${short(r.file)}:${r.line}` : '';
}

// has reports whether traffic includes a port or a protocol, as "5432",
// "udp" or "tcp/5432".
function has(f, word) {
  const [protocol, port] = /^\d+$/.test(word) ? ['', word] : word.split('/');
  if (protocol && !f.protocols.includes(protocol)) return false;
  if (!port) return true;
  if (!f.ports) return f.protocols.some(p => p !== 'icmp');
  return f.ports.some(r => { const [a, b] = r.split('-'); return +a <= +port && +port <= +(b || a); });
}

const protocolWord = /^(tcp|udp|sctp|udplite|icmp)(\/\d+)?$|^\d+$/;

function nodeMatches(n, word) {
  return n.name.includes(word) || (n.deviceNamespace || '').includes(word) || (n.members || []).some(m => m.includes(word));
}

// edgeMatches reports whether an edge has all the words of a query. A name is
// that of one of its ends, its rules or their place in the policy.
function edgeMatches(e, words) {
  return words.every(word => {
    if (word === 'refused') return e.oneSided.length > 0 || e.refused.length > 0;
    if (word === 'audit') return e.flows.some(f => f.audit) || e.refused.some(r => r.audit);
    if (protocolWord.test(word)) return [...shownFlows(e), ...e.oneSided, ...e.refused].some(f => has(f, word));
    return nodeMatches(e.source, word) || nodeMatches(e.target, word) ||
      [...e.flows, ...e.oneSided, ...e.refused].some(f => [f.connect, f.accept, f.allows, f.refuses, f.by].some(id => id && (id.includes(word) || place(id).includes(word))));
  });
}
