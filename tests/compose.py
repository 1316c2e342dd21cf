#!/usr/bin/env python3
"""Tries what docs/docker.md promises: the services of docker-compose.yml are killed, changed, replaced, backed up and restored
while 50 webhooks a second come through the proxy of deploy/compose/caddy.yml, and as many past it. Says how many got no 200,
and looks for each that got one in the topic `raw`.

    docker compose build && tests/compose.py [--compose 'docker compose'] [--engine 'systemctl restart docker']
                                             [--also NAME=PORT]… [SCENE…]

It needs Docker, Compose and Python 3.9, some 3 GB of memory, and half an hour for all scenes. It works in a directory and a project
of its own, and removes both. It is no part of CI. Blocks of docs/docker.md that are marked for it are run as they stand there.
"""

import argparse
import asyncio
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
IMAGE = "hookledger:0.1.0"
APP = "crm-sync"
RATE = 50
# No two runs send the same webhook.
RUN = f"{time.time_ns():x}"
# A body that takes a while, just below the body-limit; and how many of these come at once.
LARGE_BYTES = 500_000
LARGE = 30
# Longer than the proxy tries.
ANSWER_WAIT_S = 90
# Before and behind what is done.
QUIET_S = 5
HEALTHY_WITHIN_S = 180
HTTP_PORT, WEBHOOKS_PORT, QUERIES_PORT, PROMETHEUS_PORT = 18480, 18481, 18482, 18483


class Site:
    """A checkout of its own, as a user has it."""

    def __init__(self, compose, name, network):
        self.compose, self.name, self.network, self.extra = compose, name, network, {}
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-"))
        shutil.copy(REPOSITORY / "docker-compose.yml", self.directory)
        shutil.copytree(REPOSITORY / "deploy", self.directory / "deploy")
        self.configure(APP)

    def configure(self, apps, override=""):
        (self.directory / "docker-compose.override.yml").write_text(override or "services:\n  kafka: {}\n")
        (self.directory / ".env").write_text(
            f"COMPOSE_PROJECT_NAME={self.name}\n"
            "COMPOSE_FILE=docker-compose.yml:deploy/compose/caddy.yml:docker-compose.override.yml\n"
            f"HOOKLEDGER_APPS={apps}\nFRONT_NETWORK={self.network}\nHOOKS_HOST=:80\n"
            f"HTTP_PORT=127.0.0.1:{HTTP_PORT}\nHTTPS_PORT=127.0.0.1:0\n"
            f"WEBHOOKS_PORT={WEBHOOKS_PORT}\nQUERIES_PORT={QUERIES_PORT}\nPROMETHEUS_PORT={PROMETHEUS_PORT}\n"
        )

    def shell(self, script, check=True):
        script = script.replace("docker compose", self.compose)
        ended = subprocess.run(["bash", "-euc", script], cwd=self.directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if check and ended.returncode:
            sys.exit(f"{script}\nended with {ended.returncode}:\n{ended.stdout}\n{self.logs()}")
        return ended

    def logs(self):
        return self.shell("docker compose ps -a; docker compose logs --tail 20 ingress setup processor", check=False).stdout

    def inside(self, service, script):
        return self.shell(f"docker compose exec -T {service} bash -c '{script}'").stdout

    def document(self, name):
        """The block of docs/docker.md that is marked with this name."""
        text = (REPOSITORY / "docs/docker.md").read_text()
        return re.search(rf"<!-- tests/compose.py: {name} -->\s*```sh\n(.*?)```", text, re.S).group(1)

    def state(self, service):
        found = self.shell(
            f"docker inspect --format '{{{{.State.Status}}}} {{{{if .State.Health}}}}{{{{.State.Health.Status}}}}{{{{end}}}}' "
            f"$(docker compose ps -a -q {service})",
            check=False,
        )
        return found.stdout.split()

    def wait_until_healthy(self):
        def well():
            return all(self.state(name) == ["running", "healthy"] for name in ("ingress", "processor", "kafka"))

        wait_for(well, "all services are healthy", self.logs)

    def wait_until_drained(self):
        ask = 'exec 3<>/dev/tcp/127.0.0.1/9080; printf "GET /metrics HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'
        wait_for(lambda: re.search(r"^hookledger_disk_log_events 0$", self.inside("ingress", ask), re.M), "the disk is empty", self.logs)

    def paths(self):
        urls = self.shell("docker compose run --rm -T setup urls http://host 2>/dev/null").stdout.split()
        return [urllib.parse.urlsplit(url).path for url in urls if url.startswith("http://host/")]

    def path(self):
        return next(path for path in self.paths() if f"/{APP}/" in path)

    def raw(self):
        """How often each webhook is in `raw`."""
        tool = "/opt/kafka/bin/kafka-console-consumer.sh --bootstrap-server kafka:9092 --topic hookledger.raw --from-beginning"
        tags = "grep -oE 'data%5Btag%5D=[0-9a-z-]+'"
        read = self.shell(f"docker compose exec -T kafka {tool} --timeout-ms 20000 2>/dev/null | {tags}", check=False).stdout
        return collections.Counter(line.partition("=")[2] for line in read.splitlines())

    def remove(self):
        self.shell("docker compose down --volumes --remove-orphans", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def wait_for(condition, what, logs):
    end = time.monotonic() + HEALTHY_WITHIN_S
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"within {HEALTHY_WITHIN_S} s it did not come to this: {what}\n{logs()}")
        time.sleep(0.5)


class Sender:
    """Sends webhooks at a steady rate, each with a connection of its own, as strangers do."""

    def __init__(self, name, port, path):
        self.name, self.port, self.path = name, port, path
        self.kept, self.lost, self.waits, self.sending = set(), collections.Counter(), [], set()

    async def run(self, scene, stop):
        begin, number = time.monotonic(), 0
        while not stop.is_set():
            number += 1
            task = asyncio.create_task(self.send(f"{RUN}-{scene}-{self.name}-{number}"))
            self.sending.add(task)
            task.add_done_callback(self.sending.discard)
            await asyncio.sleep(max(0, begin + number / RATE - time.monotonic()))
        await asyncio.gather(*self.sending)

    async def send(self, tag, padding=0):
        begin = time.monotonic()
        try:
            outcome = await asyncio.wait_for(self.post(tag, padding), ANSWER_WAIT_S)
        except asyncio.TimeoutError:
            outcome = "no answer"
        except OSError as error:
            outcome = type(error).__name__
        self.waits.append(time.monotonic() - begin)
        if outcome == "200":
            self.kept.add(tag)
        else:
            self.lost[outcome] += 1

    async def post(self, tag, padding=0):
        form = {"event": "ONCRMCONTACTADD", "data[tag]": tag, "data[padding]": "x" * padding, "ts": int(time.time()),
                "auth[member_id]": f"compose-{hash(tag) % 100}", "auth[application_token]": "compose-application-token"}
        body = urllib.parse.urlencode(form)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(
                f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            await writer.drain()
            status = await reader.readline()
            return status.split()[1].decode() if status else "closed"
        finally:
            writer.close()

    def told(self):
        lost = sum(self.lost.values())
        return f"{lost} of {lost + len(self.kept)} ({', '.join(f'{n} {what}' for what, n in self.lost.items()) or 'all 200'}; slowest {max(self.waits):.1f} s)"


def under_load(site, scene, act, also):
    """Does something while webhooks come, and says what became of them."""
    senders = [Sender("proxy", HTTP_PORT, site.path()), Sender("direct", WEBHOOKS_PORT, site.path())]
    senders += [Sender(name, int(port), site.path()) for name, port in also]

    def act_and_wait():
        time.sleep(QUIET_S)
        begin = time.monotonic()
        act()
        site.wait_until_healthy()
        took = time.monotonic() - begin
        time.sleep(QUIET_S)
        return took

    async def all_of_it():
        stop = asyncio.Event()
        sending = [asyncio.create_task(sender.run(scene, stop)) for sender in senders]
        took = await asyncio.get_running_loop().run_in_executor(None, act_and_wait)
        stop.set()
        await asyncio.gather(*sending)
        return took

    took = asyncio.run(all_of_it())
    told = ", ".join(f"{sender.name} {sender.told()}" for sender in senders)
    print(f"{scene}: {took:.0f} s; without a 200: {told}", flush=True)
    return set().union(*(sender.kept for sender in senders)), bool(senders[0].lost) and scene not in PROXY_GOES_TOO


def compare(site, kept):
    """Whether all that was answered 200 is in `raw`."""
    site.wait_until_drained()
    raw = site.raw()
    missing = [tag for tag in kept if not raw[tag]]
    print(f"of {len(kept)} answered 200: {len(missing)} missing in raw, {sum(1 for tag in kept if raw[tag] > 1)} there twice", flush=True)
    return missing


# Where the proxy is replaced as well, nothing waits in front of it.
PROXY_GOES_TOO = {"engine", "up-proxy", "up-all"}


def server_pid():
    return 'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = ingress ] && echo "${p#/proc/} $(grep PPid $p/status | cut -f 2)"; done 2>/dev/null'


def kill(site, who):
    pids = dict(line.split() for line in site.inside("ingress", server_pid()).splitlines() if len(line.split()) == 2)
    server = next(pid for pid, parent in pids.items() if parent in pids)
    site.inside("ingress", f"kill -9 {server if who == 'server' else pids[server]}; true")


def kill_amid_large(site, kept):
    """Kills ingress while it reads large bodies."""
    sender = Sender("large", HTTP_PORT, site.path())

    async def send_and_kill():
        tags = [f"{RUN}-kill-large-{number}" for number in range(LARGE)]
        sending = [asyncio.create_task(sender.send(tag, LARGE_BYTES)) for tag in tags]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(kill, site, "server")
        await asyncio.gather(*sending)

    asyncio.run(send_and_kill())
    print(f"large bodies without a 200: {sender.told()}", flush=True)
    assert not sender.lost, "the proxy tries again with large bodies, too"
    kept |= sender.kept


def hup(site):
    for _ in range(3):
        site.shell(site.document("hup").replace("exec ", "exec -T "))
        time.sleep(3)


def up(site, apps=APP, override=""):
    site.configure(apps, override)
    site.shell(site.document("up"))


def changed(*services):
    each = "".join(f"  {name}:\n    labels: {{changed: '{time.time()}'}}\n" for name in services)
    return f"services:\n{each}"


def new_image(site):
    """Another image under the same name, as after `docker compose build`."""
    old = site.shell(f"docker image inspect --format '{{{{.Id}}}}' {IMAGE}").stdout.strip()
    site.shell(f"printf 'FROM {IMAGE}\\nLABEL tried={time.time()}\\n' | docker build -t {IMAGE} -")
    up(site)
    site.new_image_was = old


def wrong_name(site):
    site.configure("CRM_Sync")
    before = site.shell("docker compose ps -q ingress").stdout
    ended = site.shell(site.document("up"), check=False)
    assert ended.returncode != 0 and "no app's name" in ended.stdout, ended.stdout
    site.configure(APP)
    assert before == site.shell("docker compose ps -q ingress").stdout, "ingress was replaced"


def commands(site):
    """The service `hookledger` may do what an operator does."""
    (site.directory / "portals.csv").write_text(
        "member_id,application_token\na223c6b3710f85df22e9377d6c4f7553,token-of-one\nanother-portal,token-of-another\n"
    )
    without_token = b"event=ONCRMCONTACTADD&auth[member_id]=another-portal"
    urllib.request.urlopen(f"http://127.0.0.1:{WEBHOOKS_PORT}{site.path()}", without_token).close()
    told = site.shell(site.document("commands").replace("run --rm hookledger", "run --rm -T hookledger")).stdout
    assert f"2 installations of {APP} are imported" in told and re.search(r"redriven: [1-9]", told), told


def tokens(site):
    own = f"{RUN}-query-token"
    (site.directory / "my-tokens").write_text(f"{own} read app={APP}\n")
    site.shell(site.document("tokens"))
    site.wait_until_healthy()
    ask = urllib.request.Request(f"http://127.0.0.1:{QUERIES_PORT}/v1/installations?app={APP}", headers={"Authorization": f"Bearer {own}"})
    urllib.request.urlopen(ask).close()
    commands(site)


def broken_kafka(site):
    site.shell("docker compose kill -s KILL kafka")
    time.sleep(20)
    site.shell("docker compose start kafka")


def restore(site, kept):
    """On a new machine: another directory, other volumes."""
    new = Site(site.compose, f"{site.name}-new", "172.29.82")
    shutil.copytree(site.directory / "backups", new.directory / "backups")
    site.shell("docker compose stop")
    try:
        new.shell(new.document("restore"))
        new.wait_until_healthy()
        assert new.paths() == site.paths(), "the URLs are those of before"
        raw = new.raw()
        missing = [tag for tag in kept if not raw[tag]]
        modes = {oct(file.stat().st_mode & 0o777) for file in (new.directory / "backups").iterdir()}
        print(f"restore: of {len(kept)} answered 200 before the backup {len(missing)} are missing; modes of the copies: {modes}", flush=True)
        asyncio.run(one_more(new))
        return missing
    finally:
        new.remove()


async def one_more(site):
    assert await Sender("new", HTTP_PORT, site.path()).post("after-the-restore") == "200"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--compose", default="docker compose")
    arguments.add_argument("--engine", help="how the engine is restarted")
    arguments.add_argument("--also", action="append", default=[], metavar="NAME=PORT",
                           help=f"a proxy of your own on this machine, in front of 127.0.0.1:{WEBHOOKS_PORT}")
    arguments.add_argument("--keep", action="store_true", help="leave everything as it is at the end")
    arguments.add_argument("scene", nargs="*")
    given = arguments.parse_args()

    also = [name.split("=") for name in given.also]
    failed, kept = [], set()
    site = Site(given.compose, "hookledger-try", "172.29.81")
    scenes = {
        "hup": lambda: hup(site),
        "kill-server": lambda: kill(site, "server"),
        "kill-large": lambda: kill_amid_large(site, kept),
        "kill-container": lambda: kill(site, "parent"),
        "up-nothing": lambda: up(site),
        "up-kafka": lambda: up(site, override=changed("kafka")),
        "up-processor": lambda: up(site, override=changed("processor")),
        "up-prometheus": lambda: up(site, override=changed("prometheus")),
        "up-ingress": lambda: up(site, override=changed("ingress")),
        "up-app": lambda: up(site, apps=f"{APP},another"),
        "up-wrong-name": lambda: wrong_name(site),
        "up-image": lambda: new_image(site),
        "up-proxy": lambda: up(site, override=changed("caddy")),
        "up-all": lambda: up(site, override=changed("caddy", "ingress", "kafka", "processor", "prometheus", "setup")),
        "commands": lambda: commands(site),
        "tokens": lambda: tokens(site),
        "kafka-broken": lambda: broken_kafka(site),
        "engine": lambda: (hup(site), subprocess.run(given.engine, shell=True, check=True)),
        "backup": lambda: site.shell(site.document("backup")),
    }
    chosen = given.scene or [name for name in scenes if name != "engine" or given.engine]
    try:
        site.shell("docker compose up -d --no-build")
        site.wait_until_healthy()
        for name in chosen:
            if name == "backup":
                # What is known to be kept before the copy is made.
                before = set(kept)
            answered, bad = under_load(site, name, scenes[name], also)
            kept |= answered
            if bad:
                failed.append(name)
        if compare(site, kept):
            failed.append("raw")
        if "backup" in chosen and restore(site, before):
            failed.append("restore")
    finally:
        if hasattr(site, "new_image_was"):
            site.shell(f"docker tag {site.new_image_was} {IMAGE}")
        if not given.keep:
            site.remove()
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    os.umask(0o022)
    main()
