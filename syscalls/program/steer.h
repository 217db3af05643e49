// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// TCP listeners of socket namespaces, steered: which of several that serve a
// port gets a connection is told by the rules and by who connects, not by the
// address that the kernel knows the listener by.
//
// Each listener of a namespace is put under what its bind asked for when it
// begins to listen. A connection is given to the first of
//  - over loopback, the connecting namespace's own listener, then one that is
//    not steered (an unmanaged or an older one) and that the kernel has there,
//  - the listener of the namespace whose address it goes to,
//  - the listeners of the others, in the order of the policy,
// whose namespace accepts it. If there is none, the kernel goes on as without.
//
// A port that one listener has, bound where the kernel looks for it, is left
// to the kernel, which finds the same: that is most ports, and costs a lookup.

#define LISTENERS 65536
#define CANDIDATES 16 // listeners of a port that are asked one after another
#define TURNS 4       // sockets of a SO_REUSEPORT group that are known
#define LOOPBACK_IFINDEX 1

// The netns that the lookup program is attached to; set by the loader.
volatile const __u64 own_netns = 0;

struct listener { __u64 netns; struct addr asked; __u32 identity; __u16 port; __u16 turn; };
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH); __uint(max_entries, LISTENERS);
	__type(key, struct listener); __type(value, __u64);
} listeners SEC(".maps");

// What listens on a port, without its sockets.
struct place { __u64 netns; __u32 port; __u32 index; };
struct candidate {
	struct addr asked; // a wildcard is that of one family
	struct addr home;  // where it is bound, as the kernel says it
	__u32 identity;    // 0: the place is free
	__u32 flags;
};
enum {
	CANDIDATE_HIDDEN = 1,
	CANDIDATE_REWRITTEN = 2,
	CANDIDATE_OTHERS = 4, // of the first place: another socket has one too, or had
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, LISTENERS);
	__type(key, struct place); __type(value, struct candidate);
} candidates SEC(".maps");

// Who connects, from the moment before the first packet leaves.
struct client_key { __u64 netns; struct addr from, to; __u16 from_port, to_port; __u32 pad; };
struct client {
	__u32 identity, source, flags;
	__u32 chosen;        // 1 + the slot of the policy by which key was chosen; 0: not yet
	struct listener key; // the kernel and each expression of nftables that asks for the socket look it up
};
enum { CLIENT_MEETS_UNSTEERED = 1 };
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 65536);
	__type(key, struct client_key); __type(value, struct client);
} clients SEC(".maps");

// Who asked for a loopback address and may not be listening yet.
struct claim_key { __u64 netns; struct addr addr; __u32 port; __u32 pad; };
struct claim { __u64 time; __u32 identity; __u32 pad; };
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 4096);
	__type(key, struct claim_key); __type(value, struct claim);
} claims SEC(".maps");
#define CLAIM_NS 10000000000ull

static __always_inline bool same_addr(const struct addr *a, const struct addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}
static __always_inline struct addr wildcard_like(const struct addr *a)
{
	struct addr w = { { 0, 0, is_v4(a) ? 0xffff : 0, 0 } };
	return w;
}
static __always_inline bool covers(const struct addr *asked, const struct addr *to)
{
	return same_addr(asked, to) || (is_wildcard(asked) && is_v4(asked) == is_v4(to));
}

// hidden_home is where a namespace's listener is bound whose address another
// one has: in 127.64.0.0/10.
static __always_inline struct addr hidden_home(__u32 identity)
{
	struct addr a = { { 0, 0, 0xffff, 0x7f400000 | (identity & 0x3fffff) } };
	return a;
}

/* ---- choosing ---- */

enum { NOBODY, ACCEPTS, REFUSES };

// pick is a choice: q has the connection, seen from the accepting end.
struct pick {
	struct question q;
	__u64 netns;
	struct who me;       // the connecting end, where it is asked
	bool unsteered;      // the kernel has a listener there that is not steered
	struct listener key; // of the listener that was chosen
	struct who there;    // and whose it is
};

// try_listener asks one listener's namespace.
__noinline int try_listener(struct pick *p, const struct addr *asked, __u32 identity)
{
	if (!p || !asked) return NOBODY;
	struct listener key = { .netns = p->netns, .asked = *asked, .identity = identity, .port = p->q.port };
	bool managed = false;
	struct bpf_sock *sk = NULL;
	for (int turn = 0; turn < TURNS; turn++) {
		key.turn = turn;
		sk = bpf_map_lookup_elem(&listeners, &key);
		if (sk) break;
	}
	if (!sk) return NOBODY;
	p->there.policy = p->there.flags = 0;
	managed = member_of(p->q.slot, sk, p->netns, &p->there);
	bpf_sk_release(sk);
	p->key = key;
	if (!managed || (p->there.flags & MEMBER_AUDIT)) return ACCEPTS;
	const struct policy *policy = policy_of(p->q.slot, &p->there);
	if (!policy) return ACCEPTS;
	p->q.own = owns(p->q.slot, policy, &p->q.local);
	if (!p->q.own) return NOBODY;
	p->q.identity = p->there.identity;
	ask(&p->q, &policy->accept);
	return p->q.answer == DENY ? REFUSES : ACCEPTS;
}

enum { ON_ADDRESS = 1, ON_WILDCARD = 2 };

// try_namespace asks the listeners of one namespace, that on the very address first.
static __always_inline int try_namespace(struct pick *p, __u32 identity, int on)
{
	struct addr asked = p->q.local;
	int answer = on & ON_ADDRESS ? try_listener(p, &asked, identity) : NOBODY;
	if (answer != NOBODY || !(on & ON_WILDCARD)) return answer;
	asked = wildcard_like(&asked);
	return try_listener(p, &asked, identity);
}

static __always_inline struct candidate *candidate_at(__u64 netns, __u16 port, __u32 index)
{
	struct place at = { .netns = netns, .port = port, .index = index };
	return bpf_map_lookup_elem(&candidates, &at);
}

// must_choose reports whether a connection to a port may be another listener's
// than the kernel's own choice, by the port's first candidate.
static __always_inline bool must_choose(const struct candidate *first, const struct addr *to)
{
	if (first->flags & CANDIDATE_OTHERS) return true;
	return (first->flags & CANDIDATE_REWRITTEN) && !same_addr(&first->home, to);
}

// listener_at finds a namespace's listener that asked for an address. The caller
// has to release it.
static __always_inline struct bpf_sock *listener_at(__u64 netns, const struct addr *asked, __u32 identity, __u16 port)
{
	struct listener key = { .netns = netns, .asked = *asked, .identity = identity, .port = port };
	for (int turn = 0; turn < TURNS; turn++) {
		key.turn = turn;
		struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &key);
		if (sk) return sk;
	}
	return NULL;
}

// listens_on reports where a namespace is among the candidates of a port that
// cover an address: on both where they are too many to know.
__noinline int listens_on(__u64 netns, __u32 port, __u32 identity, const struct addr *to)
{
	int on = 0;
	if (!to) return 0;
	for (__u32 i = 0; i < CANDIDATES; i++) {
		struct candidate *c = candidate_at(netns, port, i);
		if (!c) return on;
		if (c->identity != identity || !covers(&c->asked, to)) continue;
		on |= same_addr(&c->asked, to) ? ON_ADDRESS : ON_WILDCARD;
	}
	return ON_ADDRESS | ON_WILDCARD;
}

// choose finds who gets a connection: p->key and p->there.
__noinline int choose(struct pick *p)
{
	if (!p) return NOBODY;
	__u32 client = p->q.identified ? p->q.them : 0, owner = 0;
	int on = 0;
	if (is_loopback(&p->q.local)) {
		if (client) on = listens_on(p->netns, p->q.port, client, &p->q.local);
		if (on && try_namespace(p, client, on) == ACCEPTS) return ACCEPTS;
		if (p->unsteered) return NOBODY;
	} else {
		struct local k = { .netns = p->netns, .addr = p->q.local };
		__u32 slot = p->q.slot, *o;
		void *tab = bpf_map_lookup_elem(&locals, &slot);
		o = tab ? bpf_map_lookup_elem(tab, &k) : NULL;
		owner = o ? *o : 0;
		if (owner) on = listens_on(p->netns, p->q.port, owner, &p->q.local);
		if (!on) owner = 0;
		if (owner && try_namespace(p, owner, on) == ACCEPTS) return ACCEPTS;
	}
	struct { __u32 rank, index; } best = { ~0u, 0 };
	for (__u32 i = 0; i < CANDIDATES; i++) {
		struct candidate *c = candidate_at(p->netns, p->q.port, i);
		if (!c) break;
		if (!c->identity || !covers(&c->asked, &p->q.local)) continue;
		struct addr asked = c->asked;
		__u32 identity = c->identity;
		if (try_listener(p, &asked, identity) != ACCEPTS) continue;
		__u32 rank = 2 * p->there.source + is_wildcard(&asked);
		if (rank < best.rank) {
			best.rank = rank;
			best.index = i;
		}
	}
	if (best.rank != ~0u) {
		struct candidate *c = candidate_at(p->netns, p->q.port, best.index);
		if (!c) return NOBODY;
		struct addr asked = c->asked;
		if (c->identity == p->key.identity && same_addr(&asked, &p->key.asked)) return ACCEPTS; // it was asked last
		return try_listener(p, &asked, c->identity);
	}
	// The packets' rules refuse in the name of the address's owner.
	return owner ? try_namespace(p, owner, ON_ADDRESS | ON_WILDCARD) : NOBODY;
}

/* ---- bind ---- */

// steered reports whether a namespace has a listener on a port that is given
// connections to an address.
__noinline int steered(__u64 netns, __u32 identity, const struct addr *to, __u32 port)
{
	if (!to) return 0;
	for (__u32 i = 0; i < CANDIDATES; i++) {
		struct candidate *c = candidate_at(netns, port, i);
		if (!c) break;
		if (identity && c->identity == identity && covers(&c->asked, to)) return 1;
	}
	return 0;
}

static __always_inline bool reuseport(struct bpf_sock *s)
{
	struct sock *sk = bpf_rdonly_cast(s, bpf_core_type_id_kernel(struct sock));
	return BPF_CORE_READ_BITFIELD(sk, __sk_common.skc_reuseport);
}

// sweep looks at what listens on a port that is about to be bound. Places of
// listeners that are gone are freed.
struct sweep {
	__u64 netns;
	struct addr asked; // by the bind
	__u32 identity;
	__u16 port;
	bool serves4, serves6, reuseport;
	bool conflict; // with a listener of the same namespace, unseen by the kernel
	bool hidden;   // the same namespace listens there, hidden
};

__noinline int sweep_place(struct sweep *s, __u32 index)
{
	if (!s) return 0;
	struct candidate *c = candidate_at(s->netns, s->port, index);
	if (!c) return 1;
	if (!c->identity) return 0;
	struct listener key = { .netns = s->netns, .asked = c->asked, .identity = c->identity, .port = s->port };
	struct bpf_sock *sk = NULL;
	for (int turn = 0; turn < TURNS; turn++) {
		key.turn = turn;
		sk = bpf_map_lookup_elem(&listeners, &key);
		if (sk) break;
	}
	if (!sk) {
		c->identity = 0;
		// It may have come back just now.
		key.turn = 0;
		sk = bpf_map_lookup_elem(&listeners, &key);
		if (!sk) return 0;
		c->identity = key.identity;
	}
	bool shares = s->reuseport && reuseport(sk);
	bpf_sk_release(sk);
	if (c->identity != s->identity) return 0;
	bool four = is_v4(&c->asked), overlap = same_addr(&c->asked, &s->asked);
	if (is_wildcard(&s->asked)) overlap |= four ? s->serves4 : s->serves6;
	else if (is_wildcard(&c->asked)) overlap |= four == is_v4(&s->asked);
	if (overlap && !shares) s->conflict = true;
	if ((c->flags & CANDIDATE_HIDDEN) && same_addr(&c->asked, &s->asked)) s->hidden = true;
	return 0;
}

__noinline int sweep_port(struct sweep *s)
{
	if (!s) return 0;
	for (__u32 i = 0; i < CANDIDATES; i++)
		if (sweep_place(s, i)) break;
	return 0;
}

// claimed_by_other reports whether another namespace asked for a loopback
// address a short while ago, and claims it otherwise.
static __always_inline bool claimed_by_other(__u64 netns, const struct addr *addr, __u16 port, __u32 identity)
{
	struct claim_key k = { .netns = netns, .addr = *addr, .port = port };
	struct claim mine = { .time = bpf_ktime_get_ns(), .identity = identity };
	struct claim *c = bpf_map_lookup_elem(&claims, &k);
	if (!c && bpf_map_update_elem(&claims, &k, &mine, BPF_NOEXIST)) c = bpf_map_lookup_elem(&claims, &k);
	if (!c || c->identity == identity) return false;
	if (mine.time - c->time < CLAIM_NS) return true;
	bpf_map_update_elem(&claims, &k, &mine, BPF_ANY);
	return false;
}

/* ---- listen and connect, as TCP says them ---- */

typedef volatile struct bpf_sock_ops ops_t;

static __always_inline struct addr ops_addr(__u32 family, __u32 four, __u32 a, __u32 b, __u32 c, __u32 d)
{
	if (family == AF_INET) return mapped(four);
	struct addr six = { { bpf_ntohl(a), bpf_ntohl(b), bpf_ntohl(c), bpf_ntohl(d) } };
	return six;
}

static __always_inline struct addr ops_local(ops_t *s)
{
	return ops_addr(s->family, s->local_ip4, s->local_ip6[0], s->local_ip6[1], s->local_ip6[2], s->local_ip6[3]);
}

static __always_inline struct addr ops_remote(ops_t *s)
{
	return ops_addr(s->family, s->remote_ip4, s->remote_ip6[0], s->remote_ip6[1], s->remote_ip6[2], s->remote_ip6[3]);
}

static __always_inline void register_listener(ops_t *s, struct listener *key, const struct addr *home, __u32 flags)
{
	int failed = 1;
	for (int turn = 0; turn < TURNS && failed; turn++) {
		key->turn = turn;
		failed = bpf_sock_hash_update((void *)s, &listeners, key, BPF_NOEXIST);
	}
	if (failed) return;
	struct candidate c = { .asked = key->asked, .home = *home, .identity = key->identity, .flags = flags };
	for (__u32 i = 0; i < CANDIDATES; i++) {
		struct place at = { .netns = key->netns, .port = key->port, .index = i };
		struct candidate *there = bpf_map_lookup_elem(&candidates, &at);
		if (!there) {
			if (!bpf_map_update_elem(&candidates, &at, &c, BPF_NOEXIST)) return;
			there = bpf_map_lookup_elem(&candidates, &at); // another CPU was faster
			if (!there) return;
		}
		if (i == 0 && there->identity && !(there->identity == c.identity && same_addr(&there->home, home))) {
			there->flags |= CANDIDATE_OTHERS; // before the other can be found
		}
		if (there->identity && !(there->identity == c.identity && same_addr(&there->asked, &c.asked))) continue;
		c.flags |= there->flags & CANDIDATE_OTHERS;
		if (!bpf_map_update_elem(&candidates, &at, &c, BPF_ANY)) return;
	}
}

static __always_inline void begin_to_listen(ops_t *s)
{
	struct bpf_sock *sk = s->sk;
	if (!sk) return;
	struct who me = {};
	__u64 netns = bpf_get_netns_cookie((void *)s);
	if (!member_of(slot_in_force(), sk, netns, &me) || (me.flags & MEMBER_AUDIT)) return;
	struct listener key = { .netns = netns, .identity = me.identity, .port = s->local_port, .asked = ops_local(s) };
	struct addr home = key.asked;
	__u32 flags = 0;
	struct note *n = bpf_sk_storage_get(&notes, sk, NULL, 0);
	if (n && (n->flags & REWRITTEN)) {
		key.asked = n->asked;
		flags = CANDIDATE_REWRITTEN | ((n->flags & HIDDEN) ? CANDIDATE_HIDDEN : 0);
	}
	bool four = s->family == AF_INET || is_v4(&key.asked);
	if (!four && is_wildcard(&key.asked)) {
		register_listener(s, &key, &home, flags);
		if (v6only_sock(sk)) return;
		key.asked.w[2] = 0xffff;
	}
	register_listener(s, &key, &home, flags);
}

static __always_inline void begin_to_connect(ops_t *s)
{
	struct bpf_sock *sk = s->sk;
	if (!sk) return;
	__u64 netns = bpf_get_netns_cookie((void *)s);
	__u16 port = bpf_ntohl(s->remote_port);
	struct client_key k = { .netns = netns, .to = ops_remote(s), .from_port = s->local_port, .to_port = port };
	struct candidate *first = candidate_at(netns, port, 0);
	if (!first || !must_choose(first, &k.to)) return;
	k.from = ops_local(s);
	struct who me = {};
	member_of(slot_in_force(), sk, netns, &me);
	struct client c = { .identity = me.identity, .source = me.source };
	struct note *n = bpf_sk_storage_get(&notes, sk, NULL, 0);
	if (n && (n->flags & MEETS_UNSTEERED)) c.flags = CLIENT_MEETS_UNSTEERED;
	bpf_map_update_elem(&clients, &k, &c, BPF_ANY);
}

SEC("sockops") int sockns_sockops(ops_t *s)
{
	if (s->op == BPF_SOCK_OPS_TCP_CONNECT_CB) begin_to_connect(s);
	else if (s->op == BPF_SOCK_OPS_TCP_LISTEN_CB) begin_to_listen(s);
	return 1;
}

/* ---- a connection arrives ---- */

SEC("sk_lookup") int sockns_lookup(volatile struct bpf_sk_lookup *ctx)
{
	// sock_diag(7) and the programs above ask without a device.
	if (ctx->protocol != IPPROTO_TCP || ctx->ingress_ifindex == 0) return SK_PASS;
	struct pick p = { .netns = own_netns };
	p.q.port = ctx->local_port;
	struct candidate *first = candidate_at(own_netns, p.q.port, 0);
	if (!first || !(first->flags & (CANDIDATE_OTHERS | CANDIDATE_REWRITTEN))) return SK_PASS;
	if (ctx->family == AF_INET) {
		p.q.local = mapped(ctx->local_ip4);
		p.q.peer = mapped(ctx->remote_ip4);
	} else {
		struct addr l = { { bpf_ntohl(ctx->local_ip6[0]), bpf_ntohl(ctx->local_ip6[1]), bpf_ntohl(ctx->local_ip6[2]), bpf_ntohl(ctx->local_ip6[3]) } };
		struct addr r = { { bpf_ntohl(ctx->remote_ip6[0]), bpf_ntohl(ctx->remote_ip6[1]), bpf_ntohl(ctx->remote_ip6[2]), bpf_ntohl(ctx->remote_ip6[3]) } };
		p.q.local = l;
		p.q.peer = r;
	}
	if (!(first->flags & CANDIDATE_OTHERS) && same_addr(&first->home, &p.q.local)) return SK_PASS;
	p.q.slot = slot_in_force();
	p.q.protocol = BIT_TCP;
	p.q.local_known = p.q.peer_known = true;
	struct client *c = NULL;
	if (ctx->ingress_ifindex == LOOPBACK_IFINDEX) {
		struct client_key k = { .netns = own_netns, .from = p.q.peer, .to = p.q.local, .from_port = bpf_ntohs(ctx->remote_port), .to_port = p.q.port };
		c = bpf_map_lookup_elem(&clients, &k);
		p.q.identified = true;
		if (c) {
			p.q.them = c->identity;
			p.q.source = c->source;
			p.unsteered = (c->flags & CLIENT_MEETS_UNSTEERED) != 0;
		}
	}
	struct bpf_sock *sk = NULL;
	if (c && c->chosen == p.q.slot + 1) {
		p.key = c->key;
		sk = bpf_map_lookup_elem(&listeners, &p.key);
	}
	if (!sk) {
		if (choose(&p) == NOBODY) return SK_PASS;
		if (c) {
			c->key = p.key;
			c->chosen = p.q.slot + 1;
		}
		sk = bpf_map_lookup_elem(&listeners, &p.key);
	}
	if (!sk) return SK_PASS;
	bpf_sk_assign((void *)ctx, sk, 0);
	bpf_sk_release(sk);
	return SK_PASS;
}
