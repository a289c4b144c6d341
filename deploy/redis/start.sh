#!/bin/sh
# Start Valkey with its ACL file, made of users.acl and of the password in REDIS_PASSWORD, which is in no file but as a hash.
# RUN_DIR is where the file goes, in memory; what follows the command's name is passed on.
set -eu
: "${REDIS_PASSWORD:?is not set: choose one, in deploy/.env}"
here=$(dirname "$0")
acl=${RUN_DIR:-/run/valkey}/users.acl
hash=$(printf %s "$REDIS_PASSWORD" | sha256sum | cut -d ' ' -f 1)
unset REDIS_PASSWORD
umask 077
printf 'user default reset off\nuser packetfs reset on #%s %s\n' "$hash" "$(grep -v '^#' "$here/users.acl" | tr '\n' ' ')" >"$acl"
exec valkey-server "$here/valkey.conf" --aclfile "$acl" "$@"
