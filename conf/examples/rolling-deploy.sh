#!/bin/sh
# Replaces the servers of a pool one after the other, without losing a request or a session. Of each server: drain it and wait
# until it is empty, run the command that replaces it, wait until it is healthy, make it ready. docs/operations.md says more.
set -eu

usage() {
	cat <<'USAGE'
Usage: rolling-deploy.sh [OPTIONS] POOL SERVER... -- COMMAND [ARGUMENT...]

Replaces the servers of POOL one after the other. Of each SERVER:
  1. homing server set POOL/SERVER --state drain --wait
  2. COMMAND, with POOL and SERVER in its environment; it has to replace the server and succeed
  3. waits until the health checks have found the server up for some time
  4. homing server set POOL/SERVER --state ready
Stops at the first step that fails, and says what to do then.

Options:
  --admin ADDRESS           the proxy's admin address, by default $HOMING_ADMIN or 127.0.0.1:9900; with several proxies
                            once for each: a server is replaced when it is empty on all of them
  --drain-timeout DURATION  how long a server may take to become empty (30s, 2h); by default without end. After the pool's
                            drain_deadline only sessions that send no request are left, until their idle_timeout
  --maint-on-timeout        when that time is up, set the state maint and replace the server, instead of stopping: sessions that
                            are left move with their next request
  --ignore-silent           do not wait for clients that have a token and have been silent
  --healthy-for SECONDS     how long a server has to be up before it is ready: longer than the health check's interval times
                            its fall, so that the server that was replaced is not taken for the new one (5)
  --health-timeout SECONDS  how long a server may take to become healthy (300)
  -h, --help                print this

Environment: HOMING_ADMIN, and HOMING_ADMIN_TOKEN: a token with the role operator, where the proxy has tokens.
Exit codes: 0 all were replaced, 1 a step failed, 2 the command line is wrong.

Example:
  rolling-deploy.sh --drain-timeout 1h shop a b c -- sh -c 'ssh "app-$SERVER" sudo systemctl restart shop'
USAGE
}

say() { echo "rolling-deploy: $*" >&2; }

wrong_usage() {
	say "$*"
	echo "rolling-deploy.sh --help says more." >&2
	exit 2
}

is_number() {
	case $1 in '' | *[!0-9]*) return 1 ;; esac
}

proxies=
drain_timeout=
ignore_silent=
maint_on_timeout=
healthy_for=5
health_timeout=300
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help)
		usage
		exit 0
		;;
	--ignore-silent) ignore_silent=yes ;;
	--maint-on-timeout) maint_on_timeout=yes ;;
	--admin | --drain-timeout | --healthy-for | --health-timeout)
		[ $# -ge 2 ] || wrong_usage "$1 needs a value"
		case $1 in
		--admin) proxies="$proxies $2" ;;
		--drain-timeout) drain_timeout=$2 ;;
		--healthy-for) healthy_for=$2 ;;
		--health-timeout) health_timeout=$2 ;;
		esac
		shift
		;;
	--) break ;;
	-*) wrong_usage "unknown option $1" ;;
	*) break ;;
	esac
	shift
done
is_number "$healthy_for" || wrong_usage "--healthy-for is a number of seconds, not $healthy_for"
is_number "$health_timeout" || wrong_usage "--health-timeout is a number of seconds, not $health_timeout"
[ -z "$maint_on_timeout" ] || [ -n "$drain_timeout" ] || wrong_usage "--maint-on-timeout needs --drain-timeout"
proxies=${proxies:-${HOMING_ADMIN:-127.0.0.1:9900}}

case ${1:---} in --) wrong_usage "POOL is missing" ;; esac
pool=$1
shift
remaining=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	remaining="$remaining $1"
	shift
done
[ -n "$remaining" ] || wrong_usage "name the servers of $pool to replace"
[ $# -ge 2 ] || wrong_usage "-- COMMAND is missing: what replaces a server"
shift

# What an operator does after a failure; each step sets it.
advice="Nothing was changed."

stop() {
	trap - INT TERM
	say "stopped: $*"
	echo "$advice" >&2
	exit 1
}
trap 'stop "interrupted"' INT TERM

# Where to go on from: the server of now is the first of those that remain.
go_on() { echo "Then go on with the servers that remain:$remaining"; }

# A command of homing at a proxy. While the proxy is away, as while it restarts, it is repeated for a minute.
homing_at() {
	proxy=$1
	shift
	tries=60
	while :; do
		status=0
		homing "$@" --admin "$proxy" || status=$?
		[ "$status" -eq 69 ] && [ "$tries" -gt 0 ] || return "$status"
		tries=$((tries - 1))
		sleep 1
	done
}

# At every proxy, without the table that is printed.
everywhere() {
	for each in $proxies; do
		homing_at "$each" "$@" >/dev/null || return
	done
}

# Reads the servers of a proxy.
read_servers() {
	servers=$(homing_at "$1" servers) || stop "the servers of the proxy at $1 cannot be listed"
}

# Whether there is one of the pool of which an awk condition holds: $2 name, $4 state, $6 health, $8 weight.
has_server() {
	[ -n "$(echo "$servers" | awk -v pool="$pool" -v server="$server" "\$1 == pool && $1")" ]
}

# shellcheck disable=SC2016 # of awk
check_server() {
	for each in $proxies; do
		read_servers "$each"
		has_server '$2 == server' || stop "the proxy at $each has no server $pool/$server"
		has_server '$2 == server && $6 != "unknown"' ||
			stop "$pool/$server has no health check: nothing would tell when it serves again (health_check of the pool)"
	done
}

# shellcheck disable=SC2016 # of awk
check_others() {
	for each in $proxies; do
		read_servers "$each"
		has_server '$2 != server && $4 == "ready" && $6 == "up" && $8 > 0' ||
			stop "no other server of $pool is ready and up at $each: the sessions of $server would have no place to go"
	done
}

drain() {
	set -- server set "$pool/$server" --state drain
	# First on all proxies, so that none of them sends new sessions there while another is waited for.
	everywhere "$@" || return
	set -- "$@" --wait
	[ -z "$drain_timeout" ] || set -- "$@" --timeout "$drain_timeout"
	[ -z "$ignore_silent" ] || set -- "$@" --ignore-silent
	everywhere "$@"
}

# Moves what is left of a server that did not become empty in time. Another state that was set meanwhile stays.
# shellcheck disable=SC2016 # of awk
force() {
	[ -n "$maint_on_timeout" ] || return
	for each in $proxies; do
		read_servers "$each"
		has_server '$2 == server && $4 == "drain"' || return
	done
	say "$pool/$server: not empty in time; the sessions that are left move with their next request"
	everywhere server set "$pool/$server" --state maint
}

# shellcheck disable=SC2016 # of awk
is_healthy() {
	for each in $proxies; do
		# A proxy that is away for a moment has not found it up.
		servers=$(homing servers --admin "$each" 2>/dev/null) && has_server '$2 == server && $6 == "up"' || return
	done
}

wait_until_healthy() {
	waited=0
	healthy=0
	until [ "$healthy" -gt "$healthy_for" ]; do
		[ "$waited" -le "$health_timeout" ] || return
		if is_healthy; then healthy=$((healthy + 1)); else healthy=0; fi
		waited=$((waited + 1))
		sleep 1
	done
}

command -v homing >/dev/null 2>&1 || stop "there is no homing in PATH"
for server in $remaining; do
	check_server
done

for server in $remaining; do
	advice="$pool/$server is as it was. $(go_on)"
	check_others

	say "$pool/$server: draining"
	advice="$pool/$server may still drain: it keeps its sessions and gets no new ones. Either
  homing server set $pool/$server --state ready     takes the drain back, or start this script again, which waits on.
$(go_on)"
	drain || force || stop "$pool/$server did not become empty"

	say "$pool/$server: replacing it"
	advice="$pool/$server is out of service and has no sessions in use; the other servers have them. Repair it, and when it serves:
  homing server set $pool/$server --state ready
Or start this script again, which replaces it again. $(go_on)"
	POOL=$pool SERVER=$server "$@" || stop "the command failed for $pool/$server: $*"

	say "$pool/$server: replaced, waiting until it is healthy"
	wait_until_healthy || stop "$pool/$server was not healthy within ${health_timeout}s"
	everywhere server set "$pool/$server" --state ready || stop "$pool/$server could not be made ready"
	say "$pool/$server: ready"

	remaining=${remaining#" $server"}
done
say "done. The state ready was set over the file's; 'homing server set $pool/SERVER --reset' takes that back."
