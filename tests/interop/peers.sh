#!/bin/sh
# Gets the programs of others that tests and the bench talk to: `make peers` runs it.
#
# What can live together is installed. The mail servers of which Debian allows only one are
# unpacked, each with the libraries that the machine lacks, into a directory of its own below
# .peers. Nothing of any of them is configured or started. What is there already is left as it
# is, so a second run is quick. Needs Debian 12, and root (or sudo) for what is installed.
set -eu
cd "$(dirname "$0")/../.."

INSTALLED="postfix swaks postgresql strace gcc libc6-dev"

sudo() {
    if [ "$(id -u)" = 0 ]; then "$@"; else command sudo "$@"; fi
}

# Debian asks this program whether a service may be started; 101 means no.
forbid_services() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'sudo rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' | sudo tee $policy >/dev/null
        sudo chmod 755 $policy
    fi
}

# unpack NAME PACKAGE...: into .peers/NAME
unpack() {
    place=.peers/$1
    shift
    [ ! -e "$place/.done" ] || return 0
    rm -rf "$place"
    mkdir -p "$place/usr/bin" "$place/usr/lib" "$place/usr/sbin"
    # Packages of before the merger of / and /usr have files in both.
    ln -s usr/bin usr/lib usr/sbin "$place"
    # What an installation would bring besides: it is only played through, not done.
    missing=$(apt-get install -s -q --no-install-recommends "$@" | sed -n 's/^Inst \([^ ]*\).*/\1/p')
    (
        cd "$place"
        # shellcheck disable=SC2046
        apt-get download -q -o APT::Sandbox::User=root $(printf '%s\n' "$@" $missing | sort -u)
        for package in *.deb; do
            dpkg-deb --fsys-tarfile "$package" |
                tar -x --no-same-owner --keep-directory-symlink
            rm "$package"
        done
        # A checkout is no place for programs that anybody may run as root.
        find . -type f -perm /6000 -exec chmod u-s,g-s {} +
        touch .done
    )
}

missing_of() {
    for package; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q ^ii || echo "$package"
    done
}

# shellcheck disable=SC2086
if [ -n "$(missing_of $INSTALLED)" ]; then
    forbid_services
    sudo apt-get update -q
    echo "postfix postfix/main_mailer_type select No configuration" | sudo debconf-set-selections
    sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $INSTALLED
elif ! apt-cache show exim4-daemon-light >/dev/null 2>&1; then
    sudo apt-get update -q
fi

unpack exim exim4-daemon-light
unpack opensmtpd opensmtpd
unpack sendmail sendmail-bin
unpack dovecot dovecot-core dovecot-lmtpd
