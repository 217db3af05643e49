#!/bin/sh
# Installs the Debian packages of the commands that are missing, as root; else
# says which. Arguments are COMMAND:PACKAGE or /FILE:PACKAGE. No service is started.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
missing=""
for pair in "$@"; do
	what="${pair%%:*}"
	case "$what" in
	/*) test -e "$what" ;;
	*) command -v "$what" > /dev/null ;;
	esac || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "not installed:$missing (run as root to install)"
	exit 0
fi
policy=/usr/sbin/policy-rc.d # what asks it starts nothing on 101
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' > "$policy"
	chmod 755 "$policy"
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
