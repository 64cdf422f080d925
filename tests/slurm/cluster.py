"""A Slurm of two nodes on this machine, with ports, keys and folders of its own, for as long as the tests last."""
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo"]


def reason_to_skip():
    missing = [name for name in PROGRAMS if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
    if missing:
        return f"no {', '.join(missing)}: install slurm-wlm and munge"
    return "" if os.geteuid() == 0 else "slurmd needs root"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(condition, timeout=60, what="the condition"):
    """Polls until `condition()` is true and returns what it returned; a deadline, not a delay."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come about in {timeout} s"
        time.sleep(0.1)


CONFIG = """
ClusterName=trireme
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
TmpFS={folder}/tmp-%n
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
KillWait=20
MinJobAge=300
SlurmdParameters=config_overrides
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[0]} CPUs=2 RealMemory=1000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=1000
PartitionName=main Nodes=n[0-1] Default=YES PriorityTier=1 GraceTime=20 MaxTime=INFINITE
PartitionName=urgent Nodes=n[0-1] PriorityTier=9 PreemptMode=OFF MaxTime=INFINITE
"""


class Cluster:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.daemons = []
        os.environ["PATH"] += ":/usr/sbin:/sbin"
        for name in ["munge", "state", "spool-n0", "spool-n1", "tmp-n0", "tmp-n1"]:
            (self.folder / name).mkdir()
        host = socket.gethostname().split(".")[0]
        ports = free_ports(3)
        config = self.folder / "slurm.conf"
        config.write_text(CONFIG.format(host=host, folder=self.folder, controller_port=ports[2], ports=ports))
        program = str(Path(os.environ.get("TRIREME", "build/trireme")).resolve().parent)
        self.environment = {**os.environ, "PATH": program + ":" + os.environ["PATH"], "SLURM_CONF": str(config), "OMP_NUM_THREADS": "1"}

    def __enter__(self):
        try:
            self.start_munge()
            self.start(["slurmctld", "-D", "-i"])
            for node in ["n0", "n1"]:
                self.start(["slurmd", "-D", "-N", node])
            wait_for(lambda: self.run("sinfo", "-h", "-o", "%D %t", check=False).strip() == "2 idle", 30, "two idle nodes")
        except BaseException:
            self.__exit__()
            for log in sorted(self.folder.glob("*.out")):
                print(f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}")
            raise
        return self

    def start_munge(self):
        folder = self.folder / "munge"
        folder.chmod(0o755)
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.start(["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/socket",
                    f"--pid-file={folder}/pid", f"--log-file={folder}/log", f"--seed-file={folder}/seed"])
        wait_for((folder / "socket").exists, 10, "munge's socket")

    def start(self, command):
        log = open(self.folder / f"{command[0]}-{len(self.daemons)}.out", "wb")
        self.daemons.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log,
                                             stdin=subprocess.DEVNULL, start_new_session=True))

    def __exit__(self, *_):
        if self.daemons:
            self.run("scancel", "--user=root", check=False)
            try:
                wait_for(lambda: not self.run("squeue", "-h", check=False).strip(), 10, "an empty queue")
            except AssertionError:
                pass
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *command, check=True, timeout=60, **options):
        done = subprocess.run([str(word) for word in command], env=self.environment, text=True, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def submit(self, script, *arguments, options=(), cwd=None):
        return self.run("sbatch", "--parsable", *options, script, *arguments, cwd=cwd).strip()

    def job(self, job):
        text = self.run("scontrol", "show", "job", job, "--oneliner", check=False)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def state(self, job):
        return self.job(job).get("JobState")

    def wait_for_state(self, job, *states, timeout=60):
        try:
            wait_for(lambda: self.state(job) in states, timeout, f"{states} of job {job}")
        except AssertionError as error:
            facts = self.job(job)
            output = Path(facts.get("StdOut", "/nonexistent"))
            raise AssertionError(f"{error}: {facts}\n{output.read_text() if output.exists() else ''}") from None
        return self.job(job)
