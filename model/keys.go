package model

// key is a key of a mapping in a policy file. The tables below are the source
// of truth of the language's shape: the parser allows these keys, its messages
// list them, and the JSON Schema is made from them.
type key struct {
	name string
	doc  string
	form form
}

// form is what a key's value looks like, for the schema.
type form uint8

const (
	formString form = iota
	formBool
	formAPIVersion
	formDuration
	formPath
	formPattern
	formUnit
	formName
	formMode
	formAction
	formErrno
	formProtocols // one or a list
	formPorts     // one or a list
	formPeers     // one or a list
	formLocals    // one or a list
	formAddresses // a list
	formMembers
	formBindRules
	formConnectRules
	formAcceptRules
	formDefaults
	formBindDefault
	formConnectDefault
	formAcceptDefault
	formDevices
	formGroups
	formNamespaces
	formEnforcement
	formSyscalls
	formTests
)

var (
	policyKeys = []key{
		{"apiVersion", "version of the language", formAPIVersion},
		{"deviceNamespaces", "network namespaces by name; host always exists", formDevices},
		{"groups", "named address sets", formGroups},
		{"socketNamespaces", "sets of sockets and their rules, by name", formNamespaces},
		{"udpTimeout", "how long the answer to an allowed datagram is allowed, as 30s", formDuration},
		{"enforcement", "what has to be enforced where", formEnforcement},
		{"tests", "flows and what shall become of them", formTests},
	}
	deviceKeys = []key{
		{"netns", "name of a network namespace in /run/netns", formName},
		{"path", "file that names the network namespace, as /proc/4242/ns/net", formPath},
	}
	namespaceKeys = []key{
		{"deviceNamespace", "the device namespace that its sockets are in; default host", formString},
		{"members", "the cgroup v2 subtrees whose sockets are in the namespace", formMembers},
		{"each", "pattern of cgroup paths: the namespace is a template, one for each match", formPattern},
		{"addresses", "the namespace's own local addresses", formAddresses},
		{"mode", "enforce (default), or audit: count and log, refuse nothing", formMode},
		{"bind", "rules for local addresses and ports, the first that matches decides", formBindRules},
		{"connect", "rules for connecting and sending, the first that matches decides", formConnectRules},
		{"accept", "rules for being connected and sent to, the first that matches decides", formAcceptRules},
		{"default", "what decides after the last rule, for each hook", formDefaults},
	}
	memberKeys = []key{
		{"cgroup", "absolute path of a cgroup below the cgroup2 mount", formPath},
		{"unit", "systemd unit, wherever its slice puts it", formUnit},
	}
	bindKeys = []key{
		{"action", "allow (default) or deny", formAction},
		{"error", "the errno that a denial gives", formErrno},
		{"protocol", "one or a list of protocols; absent: all", formProtocols},
		{"ports", "local ports: one, a range, or a list; absent: all", formPorts},
		{"local", "local addresses; absent: the namespace's addresses", formLocals},
		{"log", "report what the rule allows, too", formBool},
		{"audit", "only with deny: report what it would refuse, and let the rules behind it decide", formBool},
	}
	connectKeys = []key{
		{"action", "allow (default) or deny", formAction},
		{"error", "the errno that a denial gives", formErrno},
		{"protocol", "one or a list of protocols; absent: all", formProtocols},
		{"ports", "remote ports: one, a range, or a list; absent: all", formPorts},
		{"local", "local addresses; absent: the namespace's addresses", formLocals},
		{"to", "peers: one or a list; absent: any", formPeers},
		{"log", "report what the rule allows, too", formBool},
		{"audit", "only with deny: report what it would refuse, and let the rules behind it decide", formBool},
	}
	acceptKeys = []key{
		{"action", "allow (default) or deny", formAction},
		{"error", "the errno that the peer of a denial sees", formErrno},
		{"protocol", "one or a list of protocols; absent: all", formProtocols},
		{"ports", "local ports: one, a range, or a list; absent: all", formPorts},
		{"local", "local addresses; absent: the namespace's addresses", formLocals},
		{"from", "peers: one or a list; absent: any", formPeers},
		{"log", "report what the rule allows, too", formBool},
		{"audit", "only with deny: report what it would refuse, and let the rules behind it decide", formBool},
	}
	defaultsKeys = []key{
		{"bind", "default of bind", formBindDefault},
		{"connect", "default of connect", formConnectDefault},
		{"accept", "default of accept", formAcceptDefault},
	}
	outcomeKeys = []key{
		{"action", "allow or deny", formAction},
		{"error", "the errno that a denial gives", formErrno},
	}
	enforcementKeys = []key{
		{"syscalls", "auto (default): packets alone where the kernel has no more; or required", formSyscalls},
	}
)

var hookKeys = map[Hook][]key{Bind: bindKeys, Connect: connectKeys, Accept: acceptKeys}

func keyNames(keys []key) []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return names
}
