"""A real Flink cluster on this machine: one JobManager and two TaskManagers, each a process of its own.

    python tests/flink_cluster.py up      start it, print its address, and leave it running
    python tests/flink_cluster.py down    stop it

`make flink` installs the distribution (package apache-flink-libraries) below build/flink; Java comes from the
machine. Everything listens on 127.0.0.1, on ports that are free when it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from worker_pools import free_port

__all__ = ["FLINK_HOME", "FlinkCluster", "why_no_flink"]

ROOT = Path(__file__).parents[1]
FLINK_HOME = Path(os.environ.get("FLINK_HOME", ROOT / "build" / "flink" / "pyflink"))
TASK_MANAGERS = 2
SLOTS = 2
START_SECONDS = 480.0
OPENED = ["lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent"]
OPENED += ["util.concurrent.atomic", "util.concurrent.locks"]
JAVA_OPTIONS = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPENED]
JAVA_OPTIONS += [
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
]
LOGGING = """rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %-5p %c{1} - %m%n
"""
CONFIG = """\
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest}
blob.server.port: 0
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: 1
taskmanager.memory.framework.heap.size: 96m
taskmanager.memory.framework.off-heap.size: 64m
taskmanager.memory.jvm-metaspace.size: 192m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
taskmanager.memory.task.heap.size: 128m
taskmanager.memory.task.off-heap.size: 32m
taskmanager.memory.managed.size: 64m
taskmanager.memory.network.min: 32m
taskmanager.memory.network.max: 32m
parallelism.default: {parallelism}
heartbeat.interval: 2000
heartbeat.timeout: 10000
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 5
restart-strategy.fixed-delay.delay: 1 s
io.tmp.dirs: {folder}/tmp
"""
HEAPS = {"JobManager": "256m", "TaskManager": "256m"}
MAINS = {
    "JobManager": "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
    "TaskManager": "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
}


def why_no_flink() -> str | None:
    """What is missing for a cluster here, and how to get it; None when nothing is."""
    if shutil.which("java") is None:
        return "no Java on this machine; Flink 1.20 wants Java 11 or 17"
    if not list(FLINK_HOME.glob("lib/flink-dist-*.jar")):
        return f"no Flink distribution at {FLINK_HOME}; `make flink` installs it (or set FLINK_HOME)"
    return None


class FlinkCluster:
    """The processes of a cluster, with their configuration and logs in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rest = f"127.0.0.1:{free_port()}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> FlinkCluster:
        """Start every process and wait until all slots are there."""
        conf = self.folder / "conf"
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        conf.mkdir(parents=True, exist_ok=True)
        rest = self.rest.rpartition(":")[2]
        parallelism = TASK_MANAGERS * SLOTS
        (conf / "config.yaml").write_text(
            CONFIG.format(
                rpc=free_port(), rest=rest, slots=SLOTS, parallelism=parallelism, folder=self.folder
            )
        )
        (conf / "log4j.properties").write_text(LOGGING)
        self._launch("JobManager", "JobManager")
        for index in range(TASK_MANAGERS):
            self._launch("TaskManager", f"TaskManager-{index}")
        self.wait(TASK_MANAGERS)
        return self

    def wait(self, task_managers: int) -> None:
        """Wait until so many TaskManagers are registered."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.get("/overview")["taskmanagers"] == task_managers:
                    return
            time.sleep(0.3)
        raise RuntimeError(f"the cluster does not have {task_managers} TaskManagers: {self.logs()}")

    def get(self, path: str) -> Any:
        """An answer of the cluster's REST interface."""
        with urllib.request.urlopen(f"http://{self.rest}{path}", timeout=5) as answer:  # noqa: S310
            return json.load(answer)

    def kill(self, name: str) -> None:
        """End a process as a machine that goes away does."""
        self.processes[name].kill()
        self.processes.pop(name).wait()

    def stop(self) -> None:
        """End every process."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = {}

    def sql(self, statements: str) -> subprocess.Popen[bytes]:
        """Run SQL statements as batch jobs of the cluster; they are over when the process is. Needs a JDK."""
        script = self.folder / "job.sql"
        script.write_text(statements)
        source = Path(__file__).with_name("FlinkSql.java")  # Java runs a single file as it is
        arguments = [str(source), str(script), *self.rest.split(":")]
        return self._java("384m", [str(FLINK_HOME / "lib" / "*")], arguments, "sql")

    def logs(self) -> str:
        """The last lines of every log."""
        tails = (path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob("*.log")))
        return "\n----\n".join(tails)

    def _launch(self, kind: str, name: str) -> None:
        arguments = [MAINS[kind], "--configDir", str(self.folder / "conf")]
        if kind == "TaskManager":
            arguments += ["-D", f"taskmanager.resource-id={name}"]
        self._java(HEAPS[kind], [str(FLINK_HOME / "lib" / "*")], arguments, name)

    def _java(self, heap: str, jars: list[str], arguments: list[str], name: str) -> subprocess.Popen[bytes]:
        logging = f"-Dlog4j.configurationFile={self.folder / 'conf' / 'log4j.properties'}"
        limits = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:MaxMetaspaceSize=256m", "-XX:TieredStopAtLevel=1"]
        command = ["java", *limits, *JAVA_OPTIONS, logging, "-cp", ":".join(jars), *arguments]
        environment = {**os.environ, "FLINK_CONF_DIR": str(self.folder / "conf")}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self.processes[name] = process
        return process


def _end(pid: int, number: signal.Signals) -> None:
    """Signal one process and see it off; one that lingers is killed."""
    for each in (number, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, each)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if _is_over(pid):
                return
            time.sleep(0.1)


def _is_over(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def main(command: str) -> int:
    """`up` or `down`; the processes' ids are kept beside their logs."""
    folder = ROOT / "build" / "flink-cluster"
    kept = folder / "cluster.json"
    if command == "down":
        for pid in json.loads(kept.read_text())["pids"].values() if kept.exists() else ():
            _end(pid, signal.SIGTERM)
        kept.unlink(missing_ok=True)
        return 0
    if missing := why_no_flink():
        sys.stderr.write(f"flink: {missing}\n")
        return 1
    if kept.exists():
        sys.stderr.write(f"flink: {kept} says that a cluster is up; `make flink-down` stops it\n")
        return 1
    cluster = FlinkCluster(folder)
    try:
        cluster.start()
    except (RuntimeError, KeyboardInterrupt):
        cluster.stop()
        raise
    pids = {name: process.pid for name, process in cluster.processes.items()}
    kept.write_text(json.dumps({"rest": cluster.rest, "pids": pids}))
    sys.stdout.write(f"Flink is up at http://{cluster.rest}; logs in {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
