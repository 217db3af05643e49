#!/usr/bin/env bash
# Shows sockns at work with real processes in real cgroups, in a network
# namespace that is gone afterwards. Run it with `make quickstart`, as root.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
	echo "the quickstart makes a network namespace and cgroups: run it as root" >&2
	exit 1
fi
tag="sockns-demo-$$"
mount=$(awk '{ for (i = 7; i <= NF; i++) if ($i == "-" && $(i+1) == "cgroup2") { print $5; exit } }' /proc/self/mountinfo)
[ -n "$mount" ] || { echo "cgroup v2 is not mounted" >&2; exit 1; }
base="$mount/$tag"
tmp=$(mktemp -d)
export SOCKNS_RUNTIME_DIR="$tmp/run"
cleanup() {
	{
		nsenter --net="/run/netns/$tag" bin/sockns delete --auto-approve
		echo 1 > "$base/cgroup.kill"
		pkill -P $$
		wait
		sleep 0.2
		rmdir "$base"/* "$base"
		ip netns del "$tag"
		rm -rf "$tmp"
	} > /dev/null 2>&1 || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

ip netns add "$tag"
ip -n "$tag" link set lo up
mkdir "$base" "$base/web" "$base/db" "$base/other"
bin/actor listen "$base/db" "/run/netns/$tag" tcp 127.0.0.1:5432 "the database" > /dev/null &
bin/actor listen - "/run/netns/$tag" tcp 127.0.0.1:8080 "somebody's notebook" > /dev/null &
sleep 0.5

cat > "$tmp/policy.yaml" <<EOF
apiVersion: sockns/v1
socketNamespaces:
  web:
    members: [{cgroup: /$tag/web}]
    connect:
      - {protocol: tcp, ports: 5432, to: db}
      - {action: deny, error: EHOSTUNREACH, protocol: tcp, ports: 8080}
  db:
    members: [{cgroup: /$tag/db}]
    accept:
      - {protocol: tcp, ports: 5432, from: web}
EOF
table() {
	echo
	echo "$1"
	for who in web other -; do
		for port in 5432 8080; do
			cg="$base/$who"
			name="$who"
			[ "$who" = - ] && cg=- name="unmanaged"
			printf '  %-10s -> 127.0.0.1:%s  %s\n' "$name" "$port" "$(bin/actor dial "$cg" "/run/netns/$tag" tcp "127.0.0.1:$port")"
		done
	done
}
table "before: everybody reaches everything"
echo
echo "the policy:"
sed 's/^/  /' "$tmp/policy.yaml"
echo
nsenter --net="/run/netns/$tag" bin/sockns apply --auto-approve -f "$tmp/policy.yaml" 2> /dev/null
table "after apply: the database is the web server's, and the web server's alone"
nsenter --net="/run/netns/$tag" bin/sockns delete --auto-approve > /dev/null 2>&1
table "after delete"
