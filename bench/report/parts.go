package main

// part is a subject of the page: benchmarks that are run together, and what of
// their figures is shown.
type part struct {
	name       string
	benchmarks []benchmarks
	tables     []table
}

// benchmarks are those of a package whose names match a pattern.
type benchmarks struct{ pkg, pattern, time string }

// table shows one figure of one benchmark. Sub-benchmarks are named by
// key=value, divided by slashes, and the table's two directions are such keys;
// what further keys say goes with the row. Figures that nobody names are shown
// by a table without a unit: one column for each.
type table struct {
	benchmark string // BenchmarkX without its Benchmark
	caption   string
	row       string // key of rows; "" with more than one: all keys but col
	col       string // key of columns
	unit      string // as the benchmark reports it
	show      string // unit to show it in; see scales
	base      string // row that others are compared with: each figure gets its ratio
	plot      bool   // also as a curve, with col along the x axis
}

// parts in the order in which they run.
var parts = []part{
	{
		name: "packets",
		benchmarks: []benchmarks{
			{"./bench", "^BenchmarkDatagram$|^BenchmarkConnect$|^BenchmarkExchange$|^BenchmarkBulk$", "1x"},
		},
		tables: []table{
			{benchmark: "Datagram", caption: "A datagram over lo", row: "rules", col: "namespaces", unit: "p50-ns", show: "ns", base: "empty", plot: true},
			{benchmark: "Datagram", caption: "A datagram, 99th percentile", row: "rules", col: "namespaces", unit: "p99-ns", show: "ns"},
			{benchmark: "Connect", caption: "A TCP connection over lo, opened and closed", row: "rules", col: "namespaces", unit: "p50-ns", show: "us", base: "empty", plot: true},
			{benchmark: "Connect", caption: "A TCP connection, 99th percentile", row: "rules", col: "namespaces", unit: "p99-ns", show: "us"},
			{benchmark: "Exchange", caption: "A request and its answer in an open TCP connection", row: "rules", col: "namespaces", unit: "p50-ns", show: "us", base: "empty"},
			{benchmark: "Bulk", caption: "64 KiB in an open TCP connection", row: "rules", col: "namespaces", unit: "p50-ns", show: "us", base: "empty"},
		},
	},
	{
		name:       "calls",
		benchmarks: []benchmarks{{"./bench", "^BenchmarkCallBind$|^BenchmarkCallConnect$|^BenchmarkCallConnectUDP$|^BenchmarkCallSteered$|^BenchmarkCallList$", "1x"}},
		tables: []table{
			{benchmark: "CallBind", caption: "bind(2) of a TCP socket", row: "rules", col: "namespaces", unit: "p50-ns", show: "ns", base: "packets"},
			{benchmark: "CallConnect", caption: "A TCP connection over lo: socket, connect, accept, both closed", row: "rules", col: "namespaces", unit: "p50-ns", show: "us", base: "packets"},
			{benchmark: "CallSteered", caption: "The same where two namespaces listen on the port", row: "rules", col: "namespaces", unit: "p50-ns", show: "us", base: "packets"},
			{benchmark: "CallConnectUDP", caption: "connect(2) of a UDP socket", row: "rules", col: "namespaces", unit: "p50-ns", show: "ns", base: "packets"},
			{benchmark: "CallList", caption: "connect(2) of a UDP socket past lists of prefixes that both ends deny", row: "rules", col: "prefixes", unit: "p50-ns", show: "ns", base: "packets"},
		},
	},
	{
		name: "control",
		benchmarks: []benchmarks{
			{"./bench", "^BenchmarkCold$/different", "1x"}, // first in a process: the heap is its own
			{"./bench", "^BenchmarkCold$/shared", "1x"},
			{"./bench", "^BenchmarkParse$|^BenchmarkCompile$|^BenchmarkApply$|^BenchmarkPlan$", "1x"},
		},
		tables: []table{
			{benchmark: "Cold", caption: "Parse and compile, in a new process"},
			{benchmark: "Parse"}, {benchmark: "Compile"}, {benchmark: "Apply"}, {benchmark: "Plan"},
		},
	},
	{
		name: "peers",
		benchmarks: []benchmarks{
			{"./bench", "^BenchmarkRestart$", "5x"},
			{"./bench", "^BenchmarkHTTP$", "1x"},
			{"./bench", "^BenchmarkKernelMemory$", "5x"},
			{"./bench", "^BenchmarkStart$", "20x"},
		},
		tables: []table{
			{benchmark: "Restart", caption: "From a service's new cgroup to the kernel that knows it, as others do it", row: "way", col: "namespaces", unit: "p50-us", show: "ms", plot: true},
			{benchmark: "HTTP", caption: "An HTTP request to a Go server", row: "rules", col: "namespaces", unit: "p50-ns", show: "us"},
			{benchmark: "KernelMemory", caption: "What the tables take in the kernel"},
			{benchmark: "Start", caption: "`sockns --version`, and the size of the program"},
		},
	},
	{
		name: "lists",
		benchmarks: []benchmarks{
			{"./bench", "^BenchmarkListDatagram$|^BenchmarkListConnect$|^BenchmarkLookup$", "1x"},
			{"./bench", "^BenchmarkListApply$|^BenchmarkListEdit$", "5x"},
		},
		tables: []table{
			{benchmark: "ListDatagram", caption: "A datagram past a list that both ends deny", row: "rules", col: "prefixes", unit: "p50-ns", show: "us", base: "none", plot: true},
			{benchmark: "ListConnect", caption: "A TCP connection past the same lists, opened and closed", row: "rules", col: "prefixes", unit: "p50-ns", show: "us", base: "none"},
			{benchmark: "ListApply", caption: "The commit of a table with the list, and of another last prefix"},
			{benchmark: "ListEdit", caption: "One prefix of 10,000 replaced in a list that all namespaces name: the commit, and the rules that are written"},
			{benchmark: "Lookup", caption: "A rule that does not match", row: "match", col: "elements", unit: "ns/rule", show: "ns"},
		},
	},
	{
		name: "meaning",
		benchmarks: []benchmarks{
			{"./bench", "^BenchmarkExplain$", "100x"},
			{"./bench", "^BenchmarkCompare$|^BenchmarkLint$", "5x"},
		},
		tables: []table{
			{benchmark: "Explain", caption: "`explain`: one flow between two namespaces of a policy that was read", col: "namespaces", unit: "ns/op", show: "ms"},
			{benchmark: "Compare", caption: "`diff --semantic`: two policies, all flows", row: "change", col: "namespaces", unit: "ns/op", show: "ms"},
			{benchmark: "Lint", caption: "`lint`: what a policy says in vain", row: "policy", col: "namespaces", unit: "ns/op", show: "ms"},
		},
	},
	{
		name: "flood",
		benchmarks: []benchmarks{
			{"./bench", "^BenchmarkFlood$|^BenchmarkFloodWhole$|^BenchmarkFloodCalls$", "1x"},
		},
		tables: []table{
			{benchmark: "Flood", caption: "A refused datagram of a flood, refused by nftables", row: "rules", col: "namespaces", unit: "p50-ns", show: "ns", base: "refuse-in-silence"},
			{benchmark: "FloodWhole", caption: "1,000,000 of them: what is told, and what it takes of the controller"},
			{benchmark: "FloodCalls", caption: "1,000,000 calls of connect(2), refused by the syscall tier: the same, and what a call takes, told and not"},
		},
	},
	{
		name: "loop",
		benchmarks: []benchmarks{
			{"./bench", "^BenchmarkBirth$/shared", "10000x"},
			{"./bench", "^BenchmarkBirth$/different/=(10|1000)$", "10000x"},
			{"./bench", "^BenchmarkBirth$/different/=10000$", "100x"},
			{"./bench", "^BenchmarkBirthAwake$/shared", "10000x"},
			{"./bench", "^BenchmarkFlush$|^BenchmarkEdit$|^BenchmarkEditFile$|^BenchmarkDevice$", "10x"},
			{"./bench", "^BenchmarkMemory$", "1x"},
		},
		tables: []table{
			{benchmark: "Birth", caption: "From mkdir of a member's cgroup until both tiers know it"},
			{benchmark: "BirthAwake", caption: "The same on processors that are kept awake"},
			{benchmark: "Flush", caption: "From the end of a foreign `nft flush ruleset` to the full repair"},
			{benchmark: "Device", caption: "From the end of `ip netns add` until packets are decided there, and until calls are too"},
			{benchmark: "Edit", caption: "From a saved file, which is the policy, to the committed change of one rule"},
			{benchmark: "EditFile", caption: "The same where the policy is a hundred files"},
			{benchmark: "Memory", caption: "Resident memory of the controller, and the most it ever had"},
		},
	},
}

func partByName(name string) (part, bool) {
	for _, p := range parts {
		if p.name == name {
			return p, true
		}
	}
	return part{}, false
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}
