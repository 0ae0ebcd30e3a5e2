#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A real S3 server for the tests: a one-node Ceph (monitor, object store, S3 gateway), all on loopback.
#
#   s3-up.sh DIR [MON_PORT] [S3_PORT]    start it in DIR (made anew); MON_PORT + 1 is used too
#   s3-down.sh DIR                       stop it
#
# Needs: apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd ceph-mgr- curl
# Up in about 15 s, 330 MB. The endpoint is http://127.0.0.1:S3_PORT; access key and secret key are
# both "granulo-test". STORE=memstore keeps the objects in memory. S3_HOST is the gateway's address: containers on this
# machine do not reach its loopback.
set -euo pipefail

usage="usage: s3-up.sh DIR [MON_PORT] [S3_PORT]"
dir=$(realpath -m "${1:?$usage}")
mon_port=${2:-26700}
s3_port=${3:-26780}
s3_host=${S3_HOST:-127.0.0.1}
mon_address="[v2:127.0.0.1:$mon_port,v1:127.0.0.1:$((mon_port + 1))]"

for program in ceph-mon ceph-osd radosgw radosgw-admin monmaptool ceph-authtool curl; do
  command -v "$program" >/dev/null || { echo "s3-up.sh: $program is missing (see the top of this file)" >&2; exit 2; }
done
if [ -e "$dir" ] && [ ! -e "$dir/ceph.conf" ]; then
  echo "s3-up.sh: $dir exists and was not made by this script; name another folder" >&2
  exit 2
fi
rm -rf "$dir"
mkdir -p "$dir"/{mon.a,osd.0,run,log,rgw}

cluster_id=$(cat /proc/sys/kernel/random/uuid)
export CEPH_CONF=$dir/ceph.conf
cat > "$CEPH_CONF" <<EOF
[global]
fsid = $cluster_id
mon_host = $mon_address
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
run_dir = $dir/run
admin_socket = $dir/run/\$cluster-\$name.asok
pid_file = $dir/run/\$name.pid
log_file = $dir/log/\$name.log
mon_cluster_log_file = $dir/log/cluster.log
crash_dir = $dir/crash
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
mon_data_avail_warn = 2
ms_bind_ipv6 = false
[mon.a]
mon_data = $dir/mon.a
host = $(hostname)
mon_addr = 127.0.0.1:$mon_port
[osd]
osd_data = $dir/osd.\$id
keyring = $dir/osd.\$id/keyring
osd_objectstore = ${STORE:-bluestore}
bluestore_block_path =
bluestore_block_create = true
bluestore_block_size = 10737418240
bluestore_fsck_on_mount = false
osd_memory_target = 939524096
bluestore_cache_autotune = false
bluestore_cache_size = 134217728
osd_class_update_on_start = false
memstore_device_bytes = 4294967296
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
[client]
keyring = $dir/keyring
[client.rgw.a]
keyring = $dir/keyring
rgw_frontends = beast endpoint=$s3_host:$s3_port tcp_nodelay=1
rgw_data = $dir/rgw
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
rgw_run_sync_thread = false
rgw_cache_enabled = true
rgw_dynamic_resharding = false
EOF

give_up() {
  echo "s3-up.sh: $1; logs are in $dir/log" >&2
  "$(dirname "$0")/s3-down.sh" "$dir" || true
  exit 1
}

# start NAME COMMAND...: run a daemon in a session of its own and remember its process
start() {
  local name=$1
  shift
  setsid "$@" > "$dir/log/$name.out" 2>&1 < /dev/null &
  echo $! >> "$dir/pids"
}

keys=$dir/keyring
ceph-authtool --create-keyring "$keys" --gen-key -n mon. --cap mon 'allow *' > /dev/null
ceph-authtool "$keys" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' > /dev/null
ceph-authtool "$keys" --gen-key -n client.rgw.a --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw' > /dev/null
cp "$keys" "$dir/rgw/keyring"

monmaptool --create --fsid "$cluster_id" --addv a "$mon_address" "$dir/monmap" > /dev/null
ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$keys" > "$dir/log/mon-mkfs.out" 2>&1
start mon ceph-mon -i a -f

osd_id=$(cat /proc/sys/kernel/random/uuid)
osd_key=$(ceph-authtool --gen-print-key)
printf '{"cephx_secret": "%s"}' "$osd_key" | timeout 30 ceph osd new "$osd_id" -i - > /dev/null \
  || give_up "the monitor does not answer"
printf '[osd.0]\n\tkey = %s\n' "$osd_key" > "$dir/osd.0/keyring"
ceph-osd -i 0 --mkfs --osd-uuid "$osd_id" > "$dir/log/osd-mkfs.out" 2>&1
start osd ceph-osd -i 0 -f
for _ in $(seq 60); do
  if timeout 10 ceph osd stat 2> /dev/null | grep -q '1 up'; then break; fi
  sleep 0.3
done

start rgw radosgw -n client.rgw.a -f
for _ in $(seq 200); do
  if curl -s -o /dev/null "http://$s3_host:$s3_port/"; then answers=yes; break; fi
  sleep 0.3
done
[ "${answers:-}" = yes ] || give_up "the S3 gateway does not answer"
timeout 60 radosgw-admin -n client.rgw.a user create --uid=test --display-name=test \
  --access-key=granulo-test --secret-key=granulo-test > "$dir/user.json" 2> "$dir/log/user.out" \
  || give_up "the test user could not be made"
