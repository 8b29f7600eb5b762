#!/usr/bin/env bash
# Installs the real programs that tests run against, as root on Debian; elsewhere it says what is missing. The tests start
# and stop the programs themselves, so nothing is left running. A new part is a function of its own and a line at the end.
set -euo pipefail

DEBIAN=false
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -e /etc/debian_version ]; then
    DEBIAN=true
fi
UPDATED=false

# install PACKAGE...: true if they are there now; says what went wrong otherwise
install() {
    if ! $DEBIAN; then
        return 1
    fi
    local log
    log=$(mktemp)
    if ! $UPDATED; then
        apt-get update -qq >"$log" 2>&1 || cat "$log"
        UPDATED=true
    fi
    echo "Installing $* ..."
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Options::=--force-confold "$@" </dev/null >"$log" 2>&1; then
        cat "$log"
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# part WHAT CHECK INSTALL: run INSTALL unless CHECK succeeds
part() {
    if "$2"; then
        return
    fi
    if "$3" && "$2"; then
        return
    fi
    echo "$1 is missing and could not be installed (that needs root on Debian): its tests are skipped."
}

has_postgresql() {
    command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

install_postgresql() {
    # The tests make servers of their own. Debian would also make and start one for the whole machine: not for our sake.
    local config=/etc/postgresql-common/createcluster.conf
    if $DEBIAN && [ ! -e $config ]; then
        mkdir -p "$(dirname $config)"
        echo 'create_main_cluster = false' >$config
    fi
    install postgresql
}

has_docker() {
    command -v dockerd >/dev/null && [ -x /bin/busybox ]
}

install_docker() {
    # The tests start daemons of their own, with sockets of their own; the package's is not started for their sake.
    local policy=/usr/sbin/policy-rc.d made=false result=0
    if $DEBIAN && [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        made=true
    fi
    install docker.io busybox-static || result=$?
    if $made; then
        rm -f $policy
    fi
    return $result
}

has_sshd() {
    [ -x /usr/sbin/sshd ] && command -v ssh >/dev/null
}

install_sshd() {
    # As with Docker: the tests start a server of their own, on loopback.
    local policy=/usr/sbin/policy-rc.d made=false result=0
    if $DEBIAN && [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        made=true
    fi
    install openssh-server openssh-client || result=$?
    if $made; then
        rm -f $policy
    fi
    return $result
}

part "PostgreSQL's server" has_postgresql install_postgresql
part "Docker's daemon" has_docker install_docker
part "The SSH server" has_sshd install_sshd
