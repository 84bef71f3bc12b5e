#!/usr/bin/env bash
# A real SLURM of one node in a temporary folder, for the tests and for trying things out.
#
#   scripts/slurm_local.sh run COMMAND [ARG...]  bring it up, run COMMAND with SLURM_CONF set, tear
#                                                everything down, exit with COMMAND's status
#   scripts/slurm_local.sh start FOLDER          bring it up with all state in FOLDER (must not exist yet),
#                                                print `export SLURM_CONF=FOLDER/slurm.conf` to be eval'ed
#   scripts/slurm_local.sh stop FOLDER           cancel its jobs, stop it, remove FOLDER
#   scripts/slurm_local.sh install               install the Debian/Ubuntu packages slurm-wlm and munge if they are
#                                                missing; none of their services is started or enabled at boot
#
#   CPUS=n in the environment: how many CPUs the node pretends to have (default: as many as there are)
#
# Partitions: debug (default, no time limit) and short (up to an hour). Batch jobs start once a second.
# Needs root on Linux, and the programs of SLURM and munge: only `install` installs anything.
# Keeps clear of any other SLURM or munge of the machine: own folder, own ports, own munge.
# Exit status 77 and one line "skipped: ..." if it cannot be done here, 2 for wrong usage.

set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
export DPKG_ROOT=${DPKG_ROOT-}  # as Debian's own tools have it
unset "${!SLURM@}"  # inside a job of a real SLURM: nothing of that must reach ours

help() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }
usage_error() { echo "slurm_local.sh: $*" >&2; exit 2; }
skip() { echo "skipped: $*" >&2; exit 77; }

within() {  # SECONDS CONDITION...: wait for it
  local end=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do ((SECONDS < end)) || return 1; sleep 0.1; done
}
short() { ((${#1} + ${#node} <= 84)); }  # FOLDER: its sockets' paths are no longer than a socket's path can be
have_slurm() { type -P munged munge slurmctld slurmd sbatch srun scancel squeue sinfo >/dev/null; }
munge_works() { timeout 5 munge --no-input --socket="$dir/munge.socket"; }
node_idle() { [[ $(timeout 5 sinfo -h -o %T) == idle ]]; }
no_jobs() { [[ -z $(timeout 5 squeue -h) ]]; }
none_left() { [[ -z $(ours) ]]; }
gone() { ! kill -0 "$1"; }

packages() { dpkg-query --show --showformat='${Package}\n' | sort; }
at_boot() { find "$DPKG_ROOT"/etc/systemd/system "$DPKG_ROOT"/etc/rc?.d -type l ! -name 'K*' 2>/dev/null | sort; }
new() { comm -13 <(echo "$1") <("$2"); }  # BEFORE COMMAND: the lines of its output that are not in BEFORE

install_slurm() {
  have_slurm && return
  type -P apt-get >/dev/null || skip "SLURM is not installed and there is no apt-get to install it"
  local out before
  exec 9<"$0"
  flock 9  # another instance may be installing right now
  have_slurm && return
  before=$(packages) boot=$(at_boot)
  trap keep_off EXIT
  # Packages start their services where these two do not say that it is no time for it.
  out=$({ apt-get -qq update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 SYSTEMD_OFFLINE=1 apt-get -qq install -y \
            --no-install-recommends -o DPkg::Lock::Timeout=300 slurm-wlm munge
        } 2>&1 </dev/null 9<&-) || skip "slurm-wlm and munge could not be installed: ${out##*$'\n'}"
  echo "installed for SLURM: $(new "$before" packages | xargs)"
  have_slurm || skip "slurm-wlm and munge are installed, but not all of their programs are in PATH"
}

keep_off() {  # nothing is to start at boot that is not in $boot
  local link
  for link in $(new "$boot" at_boot); do
    case $link in
      */rc?.d/*) update-rc.d "$(basename "$link" | sed 's/^S[0-9]*//')" disable ;;
      *) rm -f "$link" ;;
    esac
  done >/dev/null 2>&1
}

free_port() {  # below the range from which the kernel gives ports to clients
  local port
  while port=$((20000 + RANDOM % 12000)); grep -qi ":$(printf %04X $port) " /proc/net/tcp*; do :; done
  echo $port
}

write_conf() {
  local port other
  port=$(free_port) other=$(free_port)
  while ((other == port)); do other=$(free_port); done
  cat >"$dir/slurm.conf" <<END
# SLURM puts this name into the environment of every job, where ours() finds it: it must be unique.
ClusterName=local$port-$$
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$other
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/d
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
MailProg=/bin/true
# cred_expire is also how long a requeued job waits before it starts again: 120 s, or at least 5.
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
# No cgroups, no accounting: has to work in containers.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
# Jobs compete for CPUs, not for memory. config_overrides: the node may have more CPUs than the machine.
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
# Every second, and far down the queue; the defaults spare a busy controller instead.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,default_queue_depth=1000
KillWait=5
MinJobAge=300
OverTimeLimit=0
JobRequeue=1
MaxArraySize=10001
MaxJobCount=20000
TCPTimeout=10
ReturnToService=2
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$(awk '/^MemTotal:/ {print int($2 / 1024)}' /proc/meminfo)
PartitionName=debug Nodes=$node Default=YES MaxTime=INFINITE
PartitionName=short Nodes=$node MaxTime=60
END
  # slurmd looks for cgroups even if nothing uses them, and gives up in containers: cgroup/v1 is the lenient choice.
  echo CgroupPlugin=cgroup/v1 >"$dir/cgroup.conf"
}

bring_up() {  # in $dir, which is there and empty
  touch "$dir/$marker"
  chmod 755 "$dir"  # jobs may belong to other users
  mkdir "$dir/state" "$dir/d"
  (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
  write_conf
  export SLURM_CONF=$dir/slurm.conf
  # No daemon may hold on to our stdout. --force: munged dislikes some owners and modes of parent folders.
  if ! { munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
           --seed-file="$dir/munge.seed" --log-file="$dir/munged.log" && within 30 munge_works &&
         slurmctld && slurmd -N "$node" && within 30 node_idle; } </dev/null >"$dir/start.log" 2>&1; then
    tail -n 8 "$dir"/*.log >&2
    skip "munge or SLURM did not come up (the ends of their logs are above)"
  fi
}

ours() {  # pids of the daemons (they hold a log open) and of all processes of jobs (by their environment)
  local pid
  for pid in $(find /proc/[0-9]*/fd -lname "$dir/*.log" 2>/dev/null | cut -d/ -f3 | sort -u); do
    case $(cat "/proc/$pid/comm" 2>/dev/null) in slurm* | munged) echo "$pid" ;; esac
  done
  grep -lszxF "SLURM_CLUSTER_NAME=$(sed -n 's/^ClusterName=//p' "$dir/slurm.conf")" /proc/[0-9]*/environ | cut -d/ -f3
}

tear_down() {
  set +e
  trap '' HUP INT TERM
  export SLURM_CONF=$dir/slurm.conf
  timeout 5 squeue -h -o %F | sort -u | xargs -r timeout 5 scancel
  within 2 no_jobs
  for signal in TERM KILL KILL; do  # KILL twice: a process may have forked meanwhile
    none_left && break
    ours | xargs -r kill -s $signal
    within 2 none_left
  done
  rm -rf "$dir"
} >/dev/null 2>&1

interrupted() {  # SIGNAL STATUS: end COMMAND first; a Ctrl-C has reached it too, so give it a moment
  trap '' HUP INT TERM
  if [[ -n $child ]]; then
    { [[ $1 == INT ]] && within 3 gone "$child"; } || kill -s TERM "$child" || true
    within 5 gone "$child" || kill -s KILL "$child" || true
  fi 2>/dev/null
  exit "$2"
}

if ! [[ ${1-} == run && $# -ge 2 || ${1-} =~ ^(start|stop)$ && $# -eq 2 || ${1-} == install && $# -eq 1 ]]; then
  [[ ${1-} =~ ^(-h|--help)$ ]] && help && exit
  help >&2
  exit 2
fi

if [[ $1 == install ]]; then
  [[ $EUID == 0 ]] || have_slurm || skip "needs root"
  install_slurm
  exit 0
fi

marker=.slurm_local child='' cpus=${CPUS:-$(nproc)} node=$(uname -n)
node=${node%%.*}  # as SLURM itself calls the host
[[ $cpus =~ ^[1-9][0-9]{0,4}$ ]] || usage_error "CPUS must be a number from 1 to 99999, not '$cpus'"
dir=$(realpath -m -- "${2-}")
if [[ $1 == run ]]; then
  dir=$(mktemp -du "$(realpath -m -- "${TMPDIR:-/tmp}")/slurm.XXXXXX")
  short "$dir" || dir=$(mktemp -du /tmp/slurm.XXXXXX)
fi
if [[ $1 == stop ]]; then
  [[ -e $dir/$marker ]] || usage_error "$dir is not a folder made by this script"
  [[ $EUID == 0 ]] || skip "needs root"
  tear_down
  exit 0
fi
[[ $dir =~ ^[A-Za-z0-9/._+-]+$ ]] || usage_error "slurm.conf cannot take a folder of this name: $dir"
short "$dir" || usage_error "the path is too long for sockets in it: $dir"
[[ $EUID == 0 ]] || skip "needs root"
[[ -r /proc/self/environ ]] || skip "needs /proc"
have_slurm || skip "SLURM is not installed here: \`scripts/slurm_local.sh install\` does it, or \`make test SLURM=1\`"
mkdir "$dir" 2>/dev/null || usage_error "cannot make the folder $dir (does it exist already?)"
trap tear_down EXIT
trap 'interrupted HUP 129' HUP
trap 'interrupted INT 130' INT
trap 'interrupted TERM 143' TERM
bring_up
if [[ $1 == start ]]; then
  trap - EXIT
  echo "export SLURM_CONF=$dir/slurm.conf"
else
  # In the background, because bash runs no trap while it waits for a foreground process.
  (trap - INT QUIT; exec "${@:2}") <&0 &
  child=$!
  wait $child  # and exit with its status
fi
