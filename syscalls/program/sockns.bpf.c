// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// bind(2), connect(2) and sendto(2) answered with the errno of a policy's
// rules. The programs know no policy: they walk the entries that
// syscalls/values.go describes, in one of two slots of maps. Which slot is in
// force is one word, so that a whole policy flips with one store.
//
// The packets' rules are the wall. Where this can't be sure what they would
// do (who receives, whether a datagram is an answer), it lets the call pass.

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define EPERM 1
#define EACCES 13
#define EPROTONOSUPPORT 93
#define EADDRINUSE 98
#define EADDRNOTAVAIL 99
#define ETIMEDOUT 110

#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132
#define IPPROTO_UDPLITE 136
#define IPPROTO_MPTCP 262
#define SOCK_RAW 3

// The kernel's types, as far as they are read; their places come from BTF.
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct kernfs_node { __u64 id; };
struct cgroup_subsys_state { struct cgroup *cgroup; struct cgroup_subsys_state *parent; };
struct cgroup { struct cgroup_subsys_state self; struct kernfs_node *kn; };
struct sock_cgroup_data { struct cgroup *cgroup; };
struct sock_common { unsigned char skc_reuseport : 1; unsigned char skc_ipv6only : 1; };
struct sock { struct sock_common __sk_common; struct sock_cgroup_data sk_cgrp_data; };
#pragma clang attribute pop

// volatile keeps clang from joining accesses in ways that the verifier does
// not follow.
typedef volatile struct bpf_sock_addr ctx_t;

// Set by the loader: the socket's cgroup is read by a cast (about Linux 6.7);
// without, it is noted when the socket is made.
volatile const bool use_cast = true;

// Set by the loader: the kernel tells these programs which process calls
// (about Linux 6.1).
volatile const bool know_process = true;

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define MAX_LEVEL 32   // cgroups above a socket's that are asked
#define STAMP_LEVELS 12

/* ---- the policy: syscalls/values.go has the same types ---- */

struct addr { __u32 w[4]; }; // big words first, each in host order; IPv4 is mapped

struct member {
	__u64 netns;    // cookie of the device namespace
	__u32 policy;   // index in policies
	__u32 identity; // of the socket namespace or instance
	__u32 source;   // of the socket namespace or template
	__u32 flags;
};
enum { MEMBER_AUDIT = 1 };

struct span { __u32 first, count; };

struct policy {
	struct span own;      // table: the namespace's addresses
	struct span bind;     // entries, as the next two
	struct span connect;
	struct span accept;
	struct span taken[4]; // tables: ports that others bind by rule: anywhere tcp, udp; on own addresses tcp, udp
	struct addr source4;  // the namespace's first address, or zero
	struct addr source6;
	__u32 flags;
};
enum {
	OWNS_ALL = 1,      // no addresses are listed
	ONE_ADDRESS4 = 2,  // a wildcard of the family means just source4
	ONE_ADDRESS6 = 4,
	NO_ADDRESS4 = 8,   // addresses are listed, and none of the family
	NO_ADDRESS6 = 16,
};

enum kind {
	PORT = 1,
	LOCAL_ADDRESS,
	PEER_ADDRESS,
	PEER_REMOTE_ADDRESS, // counts where the peer is not known by identity
	PEER_SOURCE,
	PEER_SELF,
	PEER_UNMANAGED,
	VERDICT,
	DEFAULT,
};
enum { GOT_PORT = 1, GOT_LOCAL = 2, GOT_PEER = 4 };
enum { HERE_PORT = 1, HERE_OWN = 2 };

struct entry {
	struct addr first, last;
	__u16 port_first, port_last;
	__u32 source;
	struct span table;  // if not empty: what matches in place of first to last, the source, or the ports of a PORT
	__u32 tag;          // names the rule wherever it stands in the list; 0: the default
	__u16 error;        // 0: the hook's default
	__u16 rule;         // from 1; 0: the default
	__u8 kind;
	__u8 protocols;     // bits of those that the entry is for
	__u8 needs;         // what must have matched before
	__u8 action;        // VERDICT: UNDECIDED, ALLOW or DENY, and ACTION_ bits
	__u8 here;          // VERDICT: HERE_ bits of what must match here
	__u8 peer;          // VERDICT: the kind of peer that must match here, or 0
	__u8 pad[2];
};

// range is addresses, or ports or sources in the last word. Those of a table
// are sorted, and do not overlap.
struct range { struct addr first, last; };

// BTF knows no type that only an inner map uses, hence the sizes.
#define SLOTS(name, inner) struct { \
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __uint(key_size, 4); \
	__array(values, inner); } name SEC(".maps")

struct members_inner {
	__uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 65536); __uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(__u64)); __uint(value_size, sizeof(struct member));
};
struct policies_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_INNER_MAP);
	__uint(key_size, sizeof(__u32)); __uint(value_size, sizeof(struct policy));
};
struct entries_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_INNER_MAP);
	__uint(key_size, sizeof(__u32)); __uint(value_size, sizeof(struct entry));
};
struct ranges_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_INNER_MAP);
	__uint(key_size, sizeof(__u32)); __uint(value_size, sizeof(struct range));
};
struct local { __u64 netns; struct addr addr; };
struct locals_inner {
	__uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 65536); __uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct local)); __uint(value_size, sizeof(__u32));
};
SLOTS(members, struct members_inner);
SLOTS(policies, struct policies_inner);
SLOTS(entries, struct entries_inner);
SLOTS(ranges, struct ranges_inner);
SLOTS(locals, struct locals_inner);

struct state { __u32 slot; __u8 digest[28]; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
	__type(key, __u32); __type(value, struct state);
} active SEC(".maps");

// How often each rule of each namespace decided, and how many of these
// decisions were reported in the current window of time.
struct decision { __u32 identity; __u32 tag; __u8 hook; __u8 outcome; __u16 pad; };
struct tally { __u64 count, window, reported; };
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 65536);
	__type(key, struct decision); __type(value, struct tally);
} decisions SEC(".maps");
enum { HOOK_BIND, HOOK_CONNECT, HOOK_ACCEPT };
enum outcome { REFUSED, AUDITED, LOGGED };

// A flood of refusals costs a count each; this many are reported.
#define REPORTS_IN_WINDOW 32
#define WINDOW_NS 1000000000ULL

// report is one decision. Who is too slow to read them finds out from count.
struct report {
	__u64 time;   // CLOCK_BOOTTIME, ns
	__u64 count;  // decisions of this rule, namespace and outcome until now
	__u64 netns;  // cookie
	__u64 cgroup; // id of the calling process's
	__u32 pid, tid;
	__u32 identity; // of the end that decided
	__u32 peer;     // of the other end; 0: nobody's, or unknown
	struct addr local, remote; // as that end sees them
	__u16 port;        // the rule's: bind and accept local, connect remote
	__u16 source_port; // of the calling socket; 0: not yet known
	__u16 error, rule;
	__u8 hook, outcome, protocol;
	__u8 identified;   // peer is known, even if it is 0
	__u8 family6;
	__u8 pad[3];
	__u32 tag;
	__u32 pad2;
	char comm[16];
};
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 20);
} reports SEC(".maps");

// What is known of one socket.
struct note {
	__u32 flags;
	struct addr asked; // the address that a rewritten bind asked for
};
enum { REWRITTEN = 1, BOUND_PORT = 2, RECEIVED = 4, HIDDEN = 8, MEETS_UNSTEERED = 16 };
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int); __type(value, struct note);
} notes SEC(".maps");

// The cgroups that a socket was created in, deepest last; without the cast.
struct stamp { __u64 id[STAMP_LEVELS]; };
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int); __type(value, struct stamp);
} stamps SEC(".maps");

/* ---- addresses ---- */

static __always_inline struct addr mapped(__u32 be)
{
	struct addr a = { { 0, 0, 0xffff, bpf_ntohl(be) } };
	return a;
}
static __always_inline bool is_v4(const struct addr *a) { return !a->w[0] && !a->w[1] && a->w[2] == 0xffff; }
static __always_inline bool is_wildcard(const struct addr *a)
{
	return !a->w[0] && !a->w[1] && (a->w[2] == 0 || a->w[2] == 0xffff) && a->w[3] == 0;
}
static __always_inline bool is_loopback(const struct addr *a)
{
	return is_v4(a) ? (a->w[3] >> 24) == 127 : !a->w[0] && !a->w[1] && !a->w[2] && a->w[3] == 1;
}
static __always_inline bool at_least(const struct addr *a, const struct addr *b)
{
	if (a->w[0] != b->w[0]) return a->w[0] > b->w[0];
	if (a->w[1] != b->w[1]) return a->w[1] > b->w[1];
	if (a->w[2] != b->w[2]) return a->w[2] > b->w[2];
	return a->w[3] >= b->w[3];
}
static __always_inline __u8 protocol_bit(__u32 type, __u32 protocol)
{
	if (type == SOCK_RAW) return 0;
	switch (protocol) {
	case IPPROTO_TCP: case IPPROTO_MPTCP: return 1;
	case IPPROTO_UDP: return 2;
	case IPPROTO_SCTP: return 4;
	case IPPROTO_UDPLITE: return 8;
	case IPPROTO_ICMP: case IPPROTO_ICMPV6: return 16;
	}
	return 0;
}
enum { BIT_TCP = 1, BIT_UDP = 2, BIT_ICMP = 16 };

/* ---- whose socket is it ---- */

// The deepest member of the network namespace is a socket's: cgroups that
// namespaces of other device namespaces claim are passed over.

static __always_inline struct member *member_by_cast(void *tab, void *sock, __u64 netns)
{
	struct sock *sk = bpf_rdonly_cast(sock, bpf_core_type_id_kernel(struct sock));
	struct cgroup *cg = sk->sk_cgrp_data.cgroup;
	for (int i = 0; i < MAX_LEVEL; i++) {
		if (!cg) break;
		__u64 id = cg->kn->id;
		struct member *m = bpf_map_lookup_elem(tab, &id);
		if (m && m->netns == netns) return m;
		struct cgroup_subsys_state *parent = cg->self.parent;
		if (!parent) break;
		cg = parent->cgroup;
	}
	return NULL;
}

static __always_inline struct member *member_by_stamp(void *tab, struct bpf_sock *sk, __u64 netns)
{
	struct stamp *s = bpf_sk_storage_get(&stamps, sk, NULL, 0);
	if (!s) return NULL;
	for (int i = STAMP_LEVELS - 1; i >= 0; i--) {
		__u64 id = s->id[i];
		if (!id) continue;
		struct member *m = bpf_map_lookup_elem(tab, &id);
		if (m && m->netns == netns) return m;
	}
	return NULL;
}

// who is a socket's place in the policy; identity 0 is nobody's.
struct who { __u32 identity, source, policy, flags; };

static __always_inline bool member_of(__u32 slot, struct bpf_sock *sk, __u64 netns, struct who *out)
{
	out->identity = out->source = 0;
	void *tab = bpf_map_lookup_elem(&members, &slot);
	if (!tab) return false;
	struct member *m = use_cast ? member_by_cast(tab, sk, netns) : member_by_stamp(tab, sk, netns);
	if (!m) return false;
	out->identity = m->identity;
	out->source = m->source;
	out->policy = m->policy;
	out->flags = m->flags;
	return true;
}

// The functions that are not static are verified once and not where they are
// called: the verifier's bound on instructions asks for it.

__noinline int find_sender(ctx_t *ctx, __u32 slot, struct who *out)
{
	struct bpf_sock *sk = ctx->sk;
	if (!out || !sk) return 0;
	return member_of(slot, sk, bpf_get_netns_cookie((void *)ctx), out);
}

static __always_inline __u32 slot_in_force(void)
{
	__u32 zero = 0;
	struct state *s = bpf_map_lookup_elem(&active, &zero);
	return s ? s->slot & 1 : 0;
}

/* ---- asking a list ---- */

enum { UNDECIDED, ALLOW, DENY, NO_RULE };
enum { ACTION_LOGS = 0x10, ACTION_AUDIT = 0x20, ACTION_MASK = 0x0f };

// question is what a list is asked, and how far the answer is.
struct question {
	__u32 slot;
	struct addr local, peer;
	__u32 identity;      // of the asking end
	__u32 them, source;  // the other end's, if known
	__u16 port;
	__u8 protocol;
	bool local_known;    // else the kernel picks one of the namespace's own
	bool own;            // the local address is the namespace's own
	bool peer_known;     // the peer's address
	bool identified;     // the peer's identity
	__u8 got, maybe;
	__u8 answer;
	bool is_default;
	bool logs;           // the rule that decided reports what it allows
	__u16 error, rule;
	__u32 tag;
	__u16 audited, audited_error; // the first rule in audit that would have refused; 0: none
	__u32 audited_tag;
};

// in_table reports whether an address is in one of a table's ranges.
__noinline int in_table(__u32 slot, const struct span *table, const struct addr *a)
{
	if (!table || !a) return 0;
	__u32 low = table->first, high = low + table->count;
	void *tab = bpf_map_lookup_elem(&ranges, &slot);
	if (!tab) return 0;
	for (int i = 0; i < 24; i++) { // 2^24 ranges
		if (low >= high) break;
		__u32 mid = low + (high - low) / 2;
		const struct range *r = bpf_map_lookup_elem(tab, &mid);
		if (!r) break;
		if (!at_least(a, &r->first)) high = mid;
		else if (!at_least(&r->last, a)) low = mid + 1;
		else return 1;
	}
	return 0;
}

static __always_inline bool number_in_table(__u32 slot, const struct span *table, __u32 number)
{
	struct addr a = { { 0, 0, 0, number } };
	return in_table(slot, table, &a);
}

static __always_inline bool port_within(const struct question *q, const struct entry *e)
{
	return e->port_first <= q->port && q->port <= e->port_last;
}

static __always_inline bool address_matches(const struct question *q, const struct entry *e, const struct addr *a)
{
	if (e->table.count) return in_table(q->slot, &e->table, a);
	return at_least(a, &e->first) && at_least(&e->last, a);
}

enum { NO, MAYBE, YES };

static __always_inline int peer_matches(const struct question *q, const struct entry *e, __u8 kind)
{
	switch (kind) {
	case PEER_REMOTE_ADDRESS:
		if (q->identified) return NO;
		// fallthrough
	case PEER_ADDRESS:
		if (!q->peer_known) return MAYBE;
		return address_matches(q, e, &q->peer) ? YES : NO;
	case PEER_SOURCE:
		if (!q->identified) return NO;
		if (e->table.count) return number_in_table(q->slot, &e->table, q->source) ? YES : NO;
		return q->source == e->source ? YES : NO;
	case PEER_SELF:
		return q->identified && q->them == q->identity ? YES : NO;
	case PEER_UNMANAGED:
		return q->identified && q->them == 0 ? YES : NO;
	}
	return NO;
}

// walk is the way through a list.
struct walk { struct question *q; void *entries; __u32 first; };

// holds reports whether a verdict does.
static __always_inline int holds(const struct question *q, const struct entry *e)
{
	if ((e->here & HERE_PORT) && !port_within(q, e)) return NO;
	if ((e->here & HERE_OWN) && q->local_known && !q->own) return NO;
	int peer = e->peer ? peer_matches(q, e, e->peer) : YES;
	return peer == YES && (q->got & e->needs) != e->needs ? MAYBE : peer;
}

static long ask_entry(__u32 i, struct walk *w)
{
	struct question *q = w->q;
	__u32 index = w->first + i;
	const struct entry *e = bpf_map_lookup_elem(w->entries, &index);
	if (!e) return 1;
	if (!(e->protocols & q->protocol)) return 0;
	bool matters = ((q->got | q->maybe) & e->needs) == e->needs;
	if (e->kind < VERDICT) {
		if (!matters) return 0;
		int matched = NO;
		__u8 dimension = GOT_PEER;
		if (e->kind == PORT) {
			dimension = GOT_PORT;
			matched = (e->table.count ? number_in_table(q->slot, &e->table, q->port) : port_within(q, e)) ? YES : NO;
		} else if (e->kind == LOCAL_ADDRESS) {
			dimension = GOT_LOCAL;
			matched = !q->local_known ? MAYBE : address_matches(q, e, &q->local) ? YES : NO;
		} else {
			matched = peer_matches(q, e, e->kind);
		}
		if (matched == YES) q->got |= dimension;
		else if (matched == MAYBE) q->maybe |= dimension;
		return 0;
	}
	int held = matters ? holds(q, e) : NO;
	q->got = q->maybe = 0;
	if (held == NO) return 0;
	if (held == MAYBE) {
		q->answer = UNDECIDED;
		return 1;
	}
	if (e->action & ACTION_AUDIT) {
		if (!q->audited) {
			q->audited = e->rule;
			q->audited_error = e->error;
			q->audited_tag = e->tag;
		}
		return 0;
	}
	q->answer = e->action & ACTION_MASK;
	q->logs = (e->action & ACTION_LOGS) != 0;
	q->error = e->error;
	q->rule = e->rule;
	q->tag = e->tag;
	q->is_default = e->kind == DEFAULT;
	return 1;
}

__noinline int ask(struct question *q, const struct span *list)
{
	if (!q || !list) return 0;
	__u32 slot = q->slot;
	q->got = q->maybe = 0;
	q->answer = NO_RULE;
	q->is_default = q->logs = false;
	q->error = q->rule = q->audited = q->audited_error = 0;
	q->tag = q->audited_tag = 0;
	struct walk w = { .q = q, .entries = bpf_map_lookup_elem(&entries, &slot), .first = list->first };
	if (!w.entries) return 0;
	bpf_loop(list->count, ask_entry, &w, 0);
	return 0;
}

static __always_inline bool owns(__u32 slot, const struct policy *p, const struct addr *a)
{
	return (p->flags & OWNS_ALL) || is_loopback(a) || in_table(slot, &p->own, a);
}

static __always_inline const struct policy *policy_of(__u32 slot, const struct who *m)
{
	void *tab = bpf_map_lookup_elem(&policies, &slot);
	__u32 index = m->policy;
	return tab ? bpf_map_lookup_elem(tab, &index) : NULL;
}

/* ---- telling what was decided ---- */

// tally counts a decision; it returns its number, or 0 if enough of its kind
// were reported for now.
static __always_inline __u64 tally(const struct decision *k, __u64 now)
{
	struct tally first = { .count = 1, .window = now, .reported = 1 };
	struct tally *t = bpf_map_lookup_elem(&decisions, k);
	if (!t) {
		if (!bpf_map_update_elem(&decisions, k, &first, BPF_NOEXIST)) return 1;
		t = bpf_map_lookup_elem(&decisions, k); // another CPU was faster
		if (!t) return 1;
	}
	__sync_fetch_and_add(&t->count, 1);
	if (now - t->window >= WINDOW_NS) {
		t->window = now;
		t->reported = 0;
	}
	if (t->reported >= REPORTS_IN_WINDOW) return 0;
	t->reported++;
	return t->count;
}

// report tells what q's list decided.
__noinline int report(ctx_t *ctx, const struct question *q, __u32 hook, __u32 outcome)
{
	if (!q) return 0;
	struct decision k = { .identity = q->identity, .tag = q->tag, .hook = hook, .outcome = outcome };
	__u64 now = bpf_ktime_get_boot_ns();
	__u64 count = tally(&k, now);
	if (!count) return 0;
	struct report *r = bpf_ringbuf_reserve(&reports, sizeof(*r), 0);
	if (!r) return 0;
	struct bpf_sock *sk = ctx->sk;
	__builtin_memset(r, 0, sizeof(*r));
	r->time = now;
	r->count = count;
	r->netns = bpf_get_netns_cookie((void *)ctx);
	if (know_process) {
		__u64 ids = bpf_get_current_pid_tgid();
		r->pid = ids >> 32;
		r->tid = (__u32)ids;
		r->cgroup = bpf_get_current_cgroup_id();
		bpf_get_current_comm(r->comm, sizeof(r->comm));
	}
	r->identity = q->identity;
	r->peer = q->them;
	r->identified = q->identified;
	r->local = q->local;
	r->remote = q->peer;
	r->port = q->port;
	if (sk) r->source_port = sk->src_port;
	r->error = q->error;
	r->rule = q->rule;
	r->tag = q->tag;
	r->hook = hook;
	r->outcome = outcome;
	r->protocol = q->protocol;
	r->family6 = ctx->user_family == AF_INET6;
	bpf_ringbuf_submit(r, 0);
	return 0;
}

// report_audited tells of the deny rule in audit that q's list came to before
// the one that decided.
static __always_inline void report_audited(ctx_t *ctx, struct question *q, __u32 hook)
{
	if (!q->audited) return;
	__u16 error = q->error, rule = q->rule;
	__u32 tag = q->tag;
	q->error = q->audited_error;
	q->rule = q->audited;
	q->tag = q->audited_tag;
	report(ctx, q, hook, AUDITED);
	q->error = error;
	q->rule = rule;
	q->tag = tag;
}

/* ---- who receives ---- */

static __always_inline struct bpf_sock *receiver(ctx_t *ctx, __u8 protocol, const struct addr *to, __u16 port_be)
{
	struct bpf_sock_tuple t = {};
	if (is_v4(to)) {
		t.ipv4.daddr = bpf_htonl(to->w[3]);
		t.ipv4.dport = port_be;
		if (protocol == BIT_TCP)
			return bpf_skc_lookup_tcp((void *)ctx, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
		return bpf_sk_lookup_udp((void *)ctx, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	t.ipv6.daddr[0] = bpf_htonl(to->w[0]);
	t.ipv6.daddr[1] = bpf_htonl(to->w[1]);
	t.ipv6.daddr[2] = bpf_htonl(to->w[2]);
	t.ipv6.daddr[3] = bpf_htonl(to->w[3]);
	t.ipv6.dport = port_be;
	if (protocol == BIT_TCP)
		return bpf_skc_lookup_tcp((void *)ctx, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
	return bpf_sk_lookup_udp((void *)ctx, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
}

// find_receiver finds whose socket gets what is sent to a local address; 0 if
// no socket does.
__noinline int find_receiver(ctx_t *ctx, __u32 slot, const struct addr *to, __u32 port_be, struct who *out)
{
	if (!to || !out) return 0;
	out->identity = out->source = 0;
	struct bpf_sock *there = receiver(ctx, protocol_bit(ctx->type, ctx->protocol), to, port_be);
	if (!there) return 0;
	member_of(slot, there, bpf_get_netns_cookie((void *)ctx), out);
	bpf_sk_release(there);
	return 1;
}

static __always_inline bool v6only_sock(struct bpf_sock *s)
{
	if (!use_cast) return false;
	struct sock *sk = bpf_rdonly_cast(s, bpf_core_type_id_kernel(struct sock));
	return BPF_CORE_READ_BITFIELD(sk, __sk_common.skc_ipv6only);
}

#include "steer.h"

// is_local reports whether a network namespace has an address, loopback aside.
static __always_inline bool is_local(__u32 slot, __u64 netns, const struct addr *a)
{
	struct local k = { .netns = netns, .addr = *a };
	void *tab = bpf_map_lookup_elem(&locals, &slot);
	return tab && bpf_map_lookup_elem(tab, &k);
}

/* ---- bind ---- */

// bind_error is the errno of a denied bind whose rule names none.
static __always_inline int bind_error(ctx_t *ctx, struct question *q, const struct policy *p, bool wildcard)
{
	if (!q->own) return EADDRNOTAVAIL;
	if (q->port == 0 || !(q->protocol & (BIT_TCP | BIT_UDP))) return EACCES;
	int udp = q->protocol == BIT_UDP;
	if (number_in_table(q->slot, &p->taken[udp], q->port)) return EADDRINUSE;
	bool overlaps = wildcard ? (p->flags & OWNS_ALL) : is_loopback(&q->local);
	if (overlaps && number_in_table(q->slot, &p->taken[2 + udp], q->port)) return EADDRINUSE;
	if (wildcard) return EACCES;
	struct who holder;
	if (!find_receiver(ctx, q->slot, &q->local, bpf_htons(q->port), &holder)) return EACCES;
	return holder.identity != q->identity ? EADDRINUSE : EACCES;
}

// decided is what becomes of a bind: an errno, or the address that replaces
// the one asked for.
struct decided { int error; bool rewrite, hidden; struct addr to; };

// The loopback addresses of which each namespace may have its own.
static __always_inline bool is_loopback_home(const struct addr *a)
{
	return is_loopback(a) && (!is_v4(a) || a->w[3] == 0x7f000001);
}

// home finds where a socket is bound in place of a wildcard, or of a loopback
// address that another namespace has (hide): the namespace's own first
// address, from where the others are steered to it.
static __always_inline bool home(const struct policy *p, const struct sweep *s, __u32 slot, bool hide, bool steers, struct decided *out)
{
	bool serves4 = s->serves4, serves6 = s->serves6;
	bool has4 = is_local(slot, s->netns, &p->source4), has6 = is_local(slot, s->netns, &p->source6);
	if (!steers) {
		// Nothing but the one address would be served.
		if (serves4 && serves6 && (p->flags & NO_ADDRESS4)) serves4 = false;
		else if (serves4 && serves6 && (p->flags & NO_ADDRESS6)) serves6 = false;
		if (serves4 && serves6) return false; // stays a wildcard: plan says so
		has4 = (p->flags & ONE_ADDRESS4) != 0;
		has6 = (p->flags & ONE_ADDRESS6) != 0;
		if (!(serves4 ? has4 : has6)) return false;
	}
	out->rewrite = true;
	if (!hide && serves4 && has4) out->to = p->source4;
	else if (!hide && serves6 && has6) out->to = p->source6;
	else if (serves4 || hide) {
		out->to = hidden_home(s->identity);
		out->hidden = true;
	} else {
		out->rewrite = false; // IPv6 alone has no hidden addresses
	}
	return out->rewrite;
}

static __always_inline int keep_asked(struct bpf_sock *sk, const struct addr *asked, struct decided *d)
{
	struct note *n = bpf_sk_storage_get(&notes, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!n) {
		d->rewrite = false;
		return 0;
	}
	n->flags |= REWRITTEN;
	if (d->hidden) n->flags |= HIDDEN;
	n->asked = *asked;
	return 0;
}

static __always_inline int decide_bind(ctx_t *ctx, const struct addr *asked_in, bool family6, struct decided *out)
{
	struct addr asked = *asked_in;
	__u8 protocol = protocol_bit(ctx->type, ctx->protocol);
	struct bpf_sock *sk = ctx->sk;
	if (!sk || !protocol) return 0;
	__u32 slot = slot_in_force();
	__u64 netns = bpf_get_netns_cookie((void *)ctx);
	struct who me = {};
	if (!find_sender(ctx, slot, &me)) return 0;
	bool audit = me.flags & MEMBER_AUDIT;
	const struct policy *p = policy_of(slot, &me);
	if (!p) return 0;
	bool wildcard = is_wildcard(&asked);
	struct question q = {
		.slot = slot, .identity = me.identity, .protocol = protocol,
		.port = bpf_ntohs(ctx->user_port), .local = asked, .local_known = true,
	};
	q.own = wildcard || owns(slot, p, &asked);
	if (!(q.port == 0 && q.own)) {
		// Only a rule that names no local address speaks of the wildcard.
		if (wildcard) {
			q.local.w[0] = q.local.w[1] = q.local.w[2] = q.local.w[3] = 0xffffffff;
		}
		ask(&q, &p->bind);
		if (wildcard) q.local = asked;
		if (q.audited && !q.audited_error) q.audited_error = bind_error(ctx, &q, p, wildcard);
		report_audited(ctx, &q, HOOK_BIND);
		bool elsewhere = q.is_default && !q.own;
		if (q.answer == DENY || elsewhere) {
			if (elsewhere) q.error = EADDRNOTAVAIL;
			if (!q.error) q.error = bind_error(ctx, &q, p, wildcard);
			report(ctx, &q, HOOK_BIND, audit ? AUDITED : REFUSED);
			if (!audit) {
				out->error = q.error;
				return 0;
			}
		} else if (q.logs) {
			report(ctx, &q, HOOK_BIND, LOGGED);
		}
	}
	bool noted = q.port && protocol != BIT_TCP; // TCP answers no datagrams: a note is dear
	struct note *n = bpf_sk_storage_get(&notes, sk, NULL, noted ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (n) {
		n->flags &= ~(REWRITTEN | HIDDEN);
		if (noted) n->flags |= BOUND_PORT;
	}
	if (audit) return 0;
	bool serves4 = !family6 || is_v4(&asked) || (wildcard && !v6only_sock(sk));
	bool serves6 = family6 && !is_v4(&asked);
	bool steers = use_cast && protocol == BIT_TCP && q.port;
	bool hide = false;
	struct sweep s = { .netns = netns, .asked = asked, .identity = me.identity, .port = q.port, .serves4 = serves4, .serves6 = serves6 };
	if (steers) {
		s.reuseport = reuseport(sk);
		sweep_port(&s);
		if (s.conflict) {
			out->error = EADDRINUSE; // the kernel's own answer, if it could see it
			return 0;
		}
		hide = s.hidden;
	}
	if (!wildcard) {
		if (!steers || !is_loopback_home(&asked) || (family6 && v6only_sock(sk))) return 0;
		struct who holder = {};
		if (!hide && find_receiver(ctx, slot, &asked, ctx->user_port, &holder)) {
			// Its own is the kernel's to refuse; one that is not steered keeps its clients.
			if (holder.identity == me.identity || !steered(netns, holder.identity, &asked, q.port)) return 0;
			hide = true;
		} else if (!hide) {
			hide = claimed_by_other(netns, &asked, q.port, me.identity);
		}
		if (!hide) return 0;
	} else if (p->flags & OWNS_ALL) {
		return 0;
	}
	return home(p, &s, slot, hide, steers, out) ? keep_asked(sk, &asked, out) : 0;
}

SEC("cgroup/bind4") int sockns_bind4(ctx_t *ctx)
{
	struct addr asked = mapped(ctx->user_ip4);
	struct decided d = {};
	decide_bind(ctx, &asked, false, &d);
	if (d.error) { bpf_set_retval(-d.error); return 0; }
	if (d.rewrite) ctx->user_ip4 = bpf_htonl(d.to.w[3]);
	return 1;
}

SEC("cgroup/bind6") int sockns_bind6(ctx_t *ctx)
{
	struct addr asked = { { bpf_ntohl(ctx->user_ip6[0]), bpf_ntohl(ctx->user_ip6[1]), bpf_ntohl(ctx->user_ip6[2]), bpf_ntohl(ctx->user_ip6[3]) } };
	struct decided d = {};
	decide_bind(ctx, &asked, true, &d);
	if (d.error) { bpf_set_retval(-d.error); return 0; }
	if (d.rewrite) {
		ctx->user_ip6[0] = bpf_htonl(d.to.w[0]);
		ctx->user_ip6[1] = bpf_htonl(d.to.w[1]);
		ctx->user_ip6[2] = bpf_htonl(d.to.w[2]);
		ctx->user_ip6[3] = bpf_htonl(d.to.w[3]);
	}
	return 1;
}

/* ---- connect and sendto ---- */

// peer_call is a connect or sendto. Its parts are functions of their own: the
// stack of a chain of calls is small.
struct peer_call {
	struct pick p;    // q has it, seen from the calling end
	struct addr from; // zero if nothing was bound; becomes the namespace's own address then
	bool answers;     // it may answer a datagram
	bool near;        // the address is one of the device namespace
};

// begin_call finds out who calls and from where; 0 if nobody's rules matter.
__noinline int begin_call(ctx_t *ctx, struct peer_call *c)
{
	if (!c) return 0;
	struct question *q = &c->p.q;
	q->protocol = protocol_bit(ctx->type, ctx->protocol);
	q->slot = slot_in_force();
	q->port = bpf_ntohs(ctx->user_port);
	q->peer_known = true;
	c->p.netns = bpf_get_netns_cookie((void *)ctx);
	if (!q->protocol || !find_sender(ctx, q->slot, &c->p.me)) return 0;
	q->identity = c->p.me.identity;
	const struct policy *p = policy_of(q->slot, &c->p.me);
	if (!p) return 0;
	// The kernel takes the wildcard for loopback (ip_route_connect, ip6_datagram_connect).
	if (is_wildcard(&q->peer)) q->peer.w[3] = is_v4(&q->peer) ? 0x7f000001 : 1;
	c->near = is_loopback(&q->peer) || is_local(q->slot, c->p.netns, &q->peer);
	bool bound = !is_wildcard(&c->from);
	q->local = c->from;
	if (!bound && !is_loopback(&q->peer) && !(p->flags & OWNS_ALL) && !(c->p.me.flags & MEMBER_AUDIT)) {
		// One that is not here can't be sent from.
		const struct addr *own = is_v4(&q->peer) ? &p->source4 : &p->source6;
		if (is_local(q->slot, c->p.netns, own)) q->local = c->from = *own;
	}
	q->local_known = !is_wildcard(&q->local);
	if (!q->local_known && c->near) {
		// The kernel picks the address that it sends to, or the first of loopback.
		q->local = q->peer;
		if (is_loopback(&q->peer) && is_v4(&q->peer)) q->local.w[3] = 0x7f000001;
		q->local_known = true;
	}
	q->own = !q->local_known || !bound || owns(q->slot, p, &q->local);
	q->identified = c->near && (q->protocol == BIT_TCP || q->protocol == BIT_UDP);
	return 1;
}

// turn_round makes a question of one end that of the other.
static __always_inline void turn_round(struct question *q, __u32 source)
{
	struct addr a = q->local;
	q->local = q->peer;
	q->peer = a;
	bool known = q->local_known;
	q->local_known = q->peer_known;
	q->peer_known = known;
	__u32 us = q->identity;
	q->identity = q->them;
	q->them = us;
	q->source = source;
}

// find_steered finds whose listener gets the connection in question, if it is
// one that is steered.
__noinline int find_steered(struct peer_call *c)
{
	if (!c) return 0;
	bool own = c->p.q.own;
	turn_round(&c->p.q, c->p.me.source);
	int found = choose(&c->p) != NOBODY;
	turn_round(&c->p.q, 0);
	c->p.q.identity = c->p.me.identity;
	c->p.q.own = own;
	return found;
}

// find_plain finds whose listener it is that alone has the port, and just the
// address: it costs less than to ask the kernel.
__noinline int find_plain(struct peer_call *c)
{
	if (!c) return 0;
	struct candidate *first = candidate_at(c->p.netns, c->p.q.port, 0);
	if (!first) return 0;
	struct bpf_sock *sk = listener_at(c->p.netns, &c->p.q.peer, first->identity, c->p.q.port);
	if (!sk) return 0;
	member_of(c->p.q.slot, sk, c->p.netns, &c->p.there);
	bpf_sk_release(sk);
	return 1;
}

// decide_peer returns the errno of a refused call, or 0.
__noinline int decide_peer(ctx_t *ctx, struct peer_call *c)
{
	if (!c) return 0;
	struct question *q = &c->p.q;
	const struct policy *ours = policy_of(q->slot, &c->p.me), *theirs = NULL;
	if (!ours) return 0;
	q->them = q->source = 0;
	if (c->p.there.identity) {
		q->them = c->p.there.identity;
		q->source = c->p.there.source;
		theirs = policy_of(q->slot, &c->p.there);
	}
	ask(q, &ours->connect);
	if (c->answers && (q->answer != ALLOW || q->audited)) return 0; // the packets know whether it is one
	report_audited(ctx, q, HOOK_CONNECT);
	bool audit = c->p.me.flags & MEMBER_AUDIT;
	if (q->answer == DENY) {
		report(ctx, q, HOOK_CONNECT, audit ? AUDITED : REFUSED);
		if (!audit) return q->error;
	} else if (q->answer != ALLOW) {
		return 0;
	} else if (q->logs && !c->answers) {
		report(ctx, q, HOOK_CONNECT, LOGGED);
	}
	if (!theirs || c->answers) return 0;
	turn_round(q, c->p.me.source);
	q->own = owns(q->slot, theirs, &q->local);
	ask(q, &theirs->accept);
	if (q->answer == UNDECIDED || (q->answer == DENY && q->error == ETIMEDOUT)) return 0; // silence is the packets'
	report_audited(ctx, q, HOOK_ACCEPT);
	audit = c->p.there.flags & MEMBER_AUDIT;
	if (q->answer == DENY) {
		report(ctx, q, HOOK_ACCEPT, audit ? AUDITED : REFUSED);
		if (!audit) return q->error;
	} else if (q->logs) {
		report(ctx, q, HOOK_ACCEPT, LOGGED);
	}
	return 0;
}

// look_ahead finds out whether who gets a TCP connection is to be chosen, and
// if so, whether the kernel has a listener on a loopback address that is not
// steered, which it notes for the lookup. PLAIN: it is the one listener that
// asked for just that address.
enum { STEERS = 1, UNSTEERED_THERE = 2, PLAIN = 4 };
__noinline int look_ahead(ctx_t *ctx, const struct addr *to_in)
{
	struct bpf_sock *sk = ctx->sk;
	if (!to_in || !sk) return 0;
	struct addr to = *to_in;
	__u64 netns = bpf_get_netns_cookie((void *)ctx);
	__u16 port = bpf_ntohs(ctx->user_port);
	if (is_wildcard(&to)) to.w[3] = is_v4(&to) ? 0x7f000001 : 1;
	struct candidate *c = candidate_at(netns, port, 0);
	if (!c) return 0;
	if (!must_choose(c, &to)) return same_addr(&c->asked, &to) ? PLAIN : 0;
	if (!is_loopback(&to)) return STEERS;
	struct who holder = {};
	bool there = find_receiver(ctx, slot_in_force(), &to, ctx->user_port, &holder) && !steered(netns, holder.identity, &to, port);
	struct note *n = bpf_sk_storage_get(&notes, sk, NULL, there ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (n && there) n->flags |= MEETS_UNSTEERED;
	else if (n) n->flags &= ~MEETS_UNSTEERED;
	return there ? STEERS | UNSTEERED_THERE : STEERS;
}

static __always_inline int refused_by(ctx_t *ctx, const struct addr *to, struct addr *from, bool answers, bool connects)
{
	struct peer_call c = { .p.q.peer = *to, .from = *from, .answers = answers };
	int steers = 0;
	if (use_cast && connects && ctx->protocol == IPPROTO_TCP) {
		steers = look_ahead(ctx, to);
		c.p.unsteered = (steers & UNSTEERED_THERE) != 0;
	}
	if (!begin_call(ctx, &c)) return 0;
	bool found = false;
	if (connects && steers && c.p.q.identified) found = steers & PLAIN ? find_plain(&c) : find_steered(&c);
	if (c.p.q.identified && !found) {
		c.p.there.identity = 0;
		struct addr there = c.p.q.peer;
		find_receiver(ctx, c.p.q.slot, &there, ctx->user_port, &c.p.there);
	}
	*from = c.from;
	return decide_peer(ctx, &c);
}

// may_answer reports whether a datagram of the socket may be the answer to
// one that it got, which the packets' rules know.
static __always_inline bool may_answer(struct bpf_sock *sk)
{
	struct note *n = bpf_sk_storage_get(&notes, sk, NULL, 0);
	return n && (n->flags & (BOUND_PORT | RECEIVED));
}

static __always_inline void forget_rewrite(struct bpf_sock *sk)
{
	struct note *n = bpf_sk_storage_get(&notes, sk, NULL, 0);
	if (n) n->flags &= ~REWRITTEN;
}

SEC("cgroup/connect4") int sockns_connect4(ctx_t *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	if (!sk) return 1;
	struct addr to = mapped(ctx->user_ip4), from = mapped(sk->src_ip4);
	bool bound = sk->src_ip4 != 0;
	bool answers = ctx->protocol == IPPROTO_UDP && sk->src_port != 0;
	int error = refused_by(ctx, &to, &from, answers, true);
	if (error) { bpf_set_retval(-error); return 0; }
	if (!bound && from.w[3]) {
		struct { __u16 family; __u16 port; __u32 addr; __u8 zero[8]; } sa = { .family = AF_INET, .addr = bpf_htonl(from.w[3]) };
		if (sk->src_port == 0) bpf_bind((void *)ctx, (void *)&sa, sizeof(sa));
	}
	forget_rewrite(sk);
	return 1;
}

SEC("cgroup/connect6") int sockns_connect6(ctx_t *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	if (!sk) return 1;
	struct addr to = { { bpf_ntohl(ctx->user_ip6[0]), bpf_ntohl(ctx->user_ip6[1]), bpf_ntohl(ctx->user_ip6[2]), bpf_ntohl(ctx->user_ip6[3]) } };
	struct addr from = { { bpf_ntohl(sk->src_ip6[0]), bpf_ntohl(sk->src_ip6[1]), bpf_ntohl(sk->src_ip6[2]), bpf_ntohl(sk->src_ip6[3]) } };
	bool bound = !is_wildcard(&from);
	bool answers = ctx->protocol == IPPROTO_UDP && sk->src_port != 0;
	int error = refused_by(ctx, &to, &from, answers, true);
	if (error) { bpf_set_retval(-error); return 0; }
	if (!bound && !is_wildcard(&from) && sk->src_port == 0) {
		struct { __u16 family; __u16 port; __u32 flow; __u32 addr[4]; __u32 scope; } sa = { .family = AF_INET6 };
		sa.addr[0] = bpf_htonl(from.w[0]);
		sa.addr[1] = bpf_htonl(from.w[1]);
		sa.addr[2] = bpf_htonl(from.w[2]);
		sa.addr[3] = bpf_htonl(from.w[3]);
		bpf_bind((void *)ctx, (void *)&sa, sizeof(sa));
	}
	forget_rewrite(sk);
	return 1;
}

SEC("cgroup/sendmsg4") int sockns_sendmsg4(ctx_t *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	if (!sk) return 1;
	struct addr to = mapped(ctx->user_ip4), from = mapped(sk->src_ip4);
	bool bound = sk->src_ip4 != 0 || ctx->msg_src_ip4 != 0, answers = may_answer(sk);
	if (ctx->msg_src_ip4) from = mapped(ctx->msg_src_ip4);
	int error = refused_by(ctx, &to, &from, answers, false);
	if (error) { bpf_set_retval(-error); return 0; }
	if (!bound && !answers && from.w[3]) ctx->msg_src_ip4 = bpf_htonl(from.w[3]);
	return 1;
}

SEC("cgroup/sendmsg6") int sockns_sendmsg6(ctx_t *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	if (!sk) return 1;
	struct addr to = { { bpf_ntohl(ctx->user_ip6[0]), bpf_ntohl(ctx->user_ip6[1]), bpf_ntohl(ctx->user_ip6[2]), bpf_ntohl(ctx->user_ip6[3]) } };
	struct addr from = { { bpf_ntohl(ctx->msg_src_ip6[0]), bpf_ntohl(ctx->msg_src_ip6[1]), bpf_ntohl(ctx->msg_src_ip6[2]), bpf_ntohl(ctx->msg_src_ip6[3]) } };
	if (is_wildcard(&from)) {
		struct addr own = { { bpf_ntohl(sk->src_ip6[0]), bpf_ntohl(sk->src_ip6[1]), bpf_ntohl(sk->src_ip6[2]), bpf_ntohl(sk->src_ip6[3]) } };
		from = own;
	}
	bool bound = !is_wildcard(&from), answers = may_answer(sk);
	int error = refused_by(ctx, &to, &from, answers, false);
	if (error) { bpf_set_retval(-error); return 0; }
	if (!bound && !answers && !is_wildcard(&from)) {
		ctx->msg_src_ip6[0] = bpf_htonl(from.w[0]);
		ctx->msg_src_ip6[1] = bpf_htonl(from.w[1]);
		ctx->msg_src_ip6[2] = bpf_htonl(from.w[2]);
		ctx->msg_src_ip6[3] = bpf_htonl(from.w[3]);
	}
	return 1;
}

static __always_inline int received(ctx_t *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	if (!sk) return 1;
	struct note *n = bpf_sk_storage_get(&notes, sk, NULL, 0);
	if (n && (n->flags & RECEIVED)) return 1;
	struct who me = {};
	if (!find_sender(ctx, slot_in_force(), &me)) return 1;
	n = bpf_sk_storage_get(&notes, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (n) n->flags |= RECEIVED;
	return 1;
}

SEC("cgroup/recvmsg4") int sockns_recvmsg4(ctx_t *ctx) { return received(ctx); }
SEC("cgroup/recvmsg6") int sockns_recvmsg6(ctx_t *ctx) { return received(ctx); }

/* ---- getsockname shows what bind asked for ---- */

static __always_inline bool asked_for(ctx_t *ctx, struct addr *asked)
{
	struct bpf_sock *sk = ctx->sk;
	if (!sk) return false;
	struct note *n = bpf_sk_storage_get(&notes, sk, NULL, 0);
	if (n && (n->flags & REWRITTEN)) {
		*asked = n->asked;
		return true;
	}
	return false;
}

SEC("cgroup/getsockname4") int sockns_getsockname4(ctx_t *ctx)
{
	struct addr asked;
	if (asked_for(ctx, &asked)) ctx->user_ip4 = bpf_htonl(asked.w[3]);
	return 1;
}

SEC("cgroup/getsockname6") int sockns_getsockname6(ctx_t *ctx)
{
	struct addr asked;
	if (asked_for(ctx, &asked)) {
		ctx->user_ip6[0] = bpf_htonl(asked.w[0]);
		ctx->user_ip6[1] = bpf_htonl(asked.w[1]);
		ctx->user_ip6[2] = bpf_htonl(asked.w[2]);
		ctx->user_ip6[3] = bpf_htonl(asked.w[3]);
	}
	return 1;
}

/* ---- a socket is made ---- */

// Without the cast the cgroups are noted. MPTCP is answered as by a kernel that
// does not have it, and applications go on with TCP (socket(2), Go, nginx do):
// its listeners can't be steered.
SEC("cgroup/sock_create") int sockns_create(struct bpf_sock *sk)
{
	if (!use_cast) {
		struct stamp s = {};
#pragma unroll
		for (int level = 1; level <= STAMP_LEVELS; level++)
			s.id[level - 1] = bpf_get_current_ancestor_cgroup_id(level);
		bpf_sk_storage_get(&stamps, sk, &s, BPF_SK_STORAGE_GET_F_CREATE);
	}
	if (sk->protocol != IPPROTO_MPTCP) return 1;
	struct who me = {};
	if (!member_of(slot_in_force(), sk, bpf_get_netns_cookie(sk), &me) || (me.flags & MEMBER_AUDIT)) return 1;
	bpf_set_retval(-EPROTONOSUPPORT);
	return 0;
}
