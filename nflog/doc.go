// Package nflog receives the packets that rules of nftables log to a group of
// nfnetlink_log (net/netfilter/nfnetlink_log.c) in one network namespace:
// their headers, the rule's prefix and the packet's mark. It knows nothing of
// what prefixes and marks mean.
package nflog
