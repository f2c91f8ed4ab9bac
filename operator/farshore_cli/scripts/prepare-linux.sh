#!/bin/sh
# Prepares a Linux machine for protection by Farshore with push installation: the process server must be able to log in
# over SSH as root, or as a user who may use sudo, and to send files over SFTP. Run it in the machine, as root.
#
# It may be run again at any time: what is right already is left alone. It prints what it changes.
# Nothing is installed beside openssh-server, sudo, tar and gzip; the agent comes with the push.
set -eu

# The login of the process server. For a user other than root, sudo is set up.
ACCOUNT=@ACCOUNT@
# Its public key, a line as in authorized_keys. Empty: the account logs in with its password, which you set yourself
# (`passwd ACCOUNT`), and password logins are switched on.
PUBLIC_KEY=@PUBLIC_KEY@

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
CONFIG=/etc/ssh/sshd_config

say() { printf 'farshore: %s\n' "$1"; }
fail() {
    printf 'farshore: error: %s\n' "$1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail 'run this as root'
[ "$(uname -s)" = Linux ] || fail 'this script is for Linux; see: farshore prepare windows'
[ "$(uname -m)" = x86_64 ] || fail "the processor is $(uname -m); the agent is built for x86-64"

# --- Packages: an SSH server, and what unpacks the agent ---------------------------------------------------------------
install_packages() {
    say "installing: $*"
    if command -v apt-get >/dev/null 2>&1; then
        DEBIAN_FRONTEND=noninteractive apt-get -q -y install "$@" ||
            { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install "$@"; }
    elif command -v dnf >/dev/null 2>&1; then
        dnf -q -y install "$@"
    elif command -v yum >/dev/null 2>&1; then
        yum -q -y install "$@"
    elif command -v zypper >/dev/null 2>&1; then
        zypper --non-interactive install "$@"
    else
        fail "install these by hand, there is no package manager that I know: $*"
    fi
}
missing=''
[ -x /usr/sbin/sshd ] || missing="$missing openssh-server"
command -v tar >/dev/null 2>&1 || missing="$missing tar"
command -v gzip >/dev/null 2>&1 || missing="$missing gzip"
if [ "$ACCOUNT" != root ]; then
    command -v sudo >/dev/null 2>&1 || missing="$missing sudo"
fi
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086
    install_packages $missing
fi

# --- The account, its key, and sudo ------------------------------------------------------------------------------------
if ! id -u "$ACCOUNT" >/dev/null 2>&1; then
    say "creating the user $ACCOUNT"
    # `*` is no password; `!`, the default, is a locked account, which sshd without PAM lets in by no key either.
    useradd -m -s /bin/sh -p '*' "$ACCOUNT"
fi
home=$(getent passwd "$ACCOUNT" | cut -d : -f 6)
if [ -n "$PUBLIC_KEY" ]; then
    keys=$home/.ssh/authorized_keys
    mkdir -p "$home/.ssh"
    touch "$keys"
    if ! grep -qxF "$PUBLIC_KEY" "$keys"; then
        say "adding the public key to $keys"
        printf '%s\n' "$PUBLIC_KEY" >>"$keys"
    fi
    chmod 700 "$home/.ssh"
    chmod 600 "$keys"
    chown -R "$ACCOUNT:" "$home/.ssh"
    if command -v restorecon >/dev/null 2>&1; then restorecon -R "$home/.ssh" || true; fi
fi
if [ "$ACCOUNT" != root ]; then
    rule=/etc/sudoers.d/farshore
    # Without a password where the login is by key: there is no password that sudo could ask for. Without a terminal in
    # any case, for the process server has none.
    if [ -n "$PUBLIC_KEY" ]; then
        wanted=$(printf 'Defaults:%s !requiretty\n%s ALL=(ALL) NOPASSWD: ALL' "$ACCOUNT" "$ACCOUNT")
    else
        wanted=$(printf 'Defaults:%s !requiretty\n%s ALL=(ALL) ALL' "$ACCOUNT" "$ACCOUNT")
    fi
    if [ ! -f "$rule" ] || [ "$(cat "$rule")" != "$wanted" ]; then
        say "letting $ACCOUNT use sudo ($rule)"
        mkdir -p /etc/sudoers.d
        new=/etc/sudoers.d/.farshore.new
        printf '%s\n' "$wanted" >"$new"
        chmod 440 "$new"
        visudo -cqf "$new" || fail "sudo does not accept $new"
        mv -f "$new" "$rule"
    fi
fi

# --- The SSH server: SFTP, and the way of login that is used -------------------------------------------------------------
# What sshd really uses, with every included file, is what `sshd -T` prints.
mkdir -p /run/sshd
ls /etc/ssh/ssh_host_*_key >/dev/null 2>&1 || ssh-keygen -A
effective() { /usr/sbin/sshd -T -C "user=$ACCOUNT,host=localhost,addr=127.0.0.1" 2>/dev/null | awk -v name="$1" '$1 == name {print $2; exit}'; }
changed=no
candidate=$CONFIG.farshore-new
cp -p "$CONFIG" "$candidate"
# The first value wins in sshd_config, so a setting goes to the top, before any Include and any Match.
setting() {
    say "setting \`$1 $2\` in $CONFIG"
    { printf '# for Farshore (%s)\n%s %s\n' "$(date +%Y-%m-%d)" "$1" "$2" && cat "$candidate"; } >"$candidate.next"
    cat "$candidate.next" >"$candidate"
    rm -f "$candidate.next"
    changed=yes
}
[ -n "$(effective subsystem)" ] || setting Subsystem 'sftp internal-sftp'
if [ -n "$PUBLIC_KEY" ]; then
    [ "$(effective pubkeyauthentication)" = yes ] || setting PubkeyAuthentication yes
else
    [ "$(effective passwordauthentication)" = yes ] || setting PasswordAuthentication yes
fi
if [ "$ACCOUNT" = root ]; then
    case $(effective permitrootlogin) in
    yes) ;;
    prohibit-password | without-password) [ -n "$PUBLIC_KEY" ] || setting PermitRootLogin yes ;;
    *) if [ -n "$PUBLIC_KEY" ]; then setting PermitRootLogin prohibit-password; else setting PermitRootLogin yes; fi ;;
    esac
fi
if [ $changed = yes ]; then
    /usr/sbin/sshd -t -f "$candidate" || fail "sshd does not accept the new configuration; $candidate is left to look at"
    [ -f "$CONFIG.before-farshore" ] || cp -p "$CONFIG" "$CONFIG.before-farshore"
    mv -f "$candidate" "$CONFIG"
else
    rm -f "$candidate"
fi

# The running daemon: the one that listens, a child of process 1; sessions have their own processes and stay.
daemon() {
    for process in /proc/[0-9]*; do
        if [ "$(cat "$process/comm" 2>/dev/null)" = sshd ] && grep -q '^PPid:[^0-9]*1$' "$process/status" 2>/dev/null; then
            printf '%s\n' "${process#/proc/}"
        fi
    done
}
if [ -d /run/systemd/system ]; then
    unit=ssh
    if systemctl cat sshd.service >/dev/null 2>&1; then unit=sshd; fi
    systemctl enable --now "$unit" >/dev/null 2>&1 || fail "systemd does not start $unit"
    if [ $changed = yes ]; then systemctl reload-or-restart "$unit"; fi
elif [ -n "$(daemon)" ]; then
    if [ $changed = yes ]; then for process in $(daemon); do kill -HUP "$process"; done; fi
elif command -v service >/dev/null 2>&1; then
    service sshd start 2>/dev/null || service ssh start
else
    /usr/sbin/sshd
fi

# --- Firewalls of the machine: let the process server in on the SSH port --------------------------------------------------
if command -v firewall-cmd >/dev/null 2>&1 && firewall-cmd -q --state 2>/dev/null; then
    if ! firewall-cmd -q --query-service=ssh; then
        say 'opening the SSH port in firewalld'
        firewall-cmd -q --permanent --add-service=ssh
        firewall-cmd -q --reload
    fi
elif command -v ufw >/dev/null 2>&1 && ufw status 2>/dev/null | grep -q '^Status: active'; then
    ufw allow 22/tcp >/dev/null
fi

# --- The host name: it must map to the addresses of the network adapters --------------------------------------------------
name=$(uname -n)
addresses=$(ip -o -4 addr show scope global 2>/dev/null | awk '{sub(/\/.*/, "", $4); print $4}')
[ -n "$addresses" ] || addresses=$(hostname -I 2>/dev/null || true)
for address in $addresses; do
    if ! awk -v address="$address" -v name="$name" \
        '{sub(/#.*/, "")} $1 == address {for (i = 2; i <= NF; i++) if ($i == name) found = 1} END {exit !found}' /etc/hosts; then
        say "mapping $name to $address in /etc/hosts"
        printf '%s %s\n' "$address" "$name" >>/etc/hosts
    fi
done

# --- The clock -------------------------------------------------------------------------------------------------------------
if command -v timedatectl >/dev/null 2>&1 && [ -d /run/systemd/system ]; then
    if [ "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)" = no ]; then
        say 'note: the clock is not synchronised with a time server yet (timedatectl set-ntp true)'
    fi
fi

say "ready. Account: $ACCOUNT. Private addresses of this machine: $(printf '%s' "$addresses" | tr '\n' ' ')"
if [ -z "$PUBLIC_KEY" ]; then say "the account logs in with its password; set it with: passwd $ACCOUNT"; fi
say 'check it from the process server: farshore doctor'
