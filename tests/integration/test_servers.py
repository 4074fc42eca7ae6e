"""Every real server starts, answers and stops; none outlives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from tools.servers import MAJORS, PostgresServer, ServerStartError, ServerUnavailableError, grpcurl, postgres
from tools.servers.directories import sweep

CHECKOUT = Path(__file__).parents[2]

OWNER = """
import sys, time
from tools.servers import PostgresServer, postgres
server = PostgresServer(postgres(17))
server.start()
print(server.pid, server.directory, flush=True)
time.sleep(float(sys.argv[1]))
"""


def wait_until(condition: Callable[[], bool], *, within_seconds: float) -> bool:
    deadline = time.monotonic() + within_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("major", MAJORS)
def test_every_major_answers_over_tcp_and_socket_and_asks_for_a_password(
    major: int, postgres_servers: Callable[[int], PostgresServer]
) -> None:
    server = postgres_servers(major)

    assert server.psql("show server_version").startswith(server.install.version)
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("show server_encoding").fetchone() == ("UTF8",)
    by_socket = f"host={server.socket_directory} port={server.port} user=postgres dbname=postgres"
    with psycopg.connect(by_socket, password=server.password) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn(password="wrong"))


@pytest.mark.parametrize("major", [major for major in MAJORS if major >= 15])
def test_clients_that_come_with_a_server_dump_it(major: int, postgres_servers: Callable[[int], PostgresServer]) -> None:
    server = postgres_servers(major)
    server.psql("create table if not exists dumped (note text)")

    dumped = subprocess.run(
        [server.install.program("pg_dump"), "--table=dumped"], env=server.environment(), capture_output=True, check=True
    )

    assert b"CREATE TABLE public.dumped" in dumped.stdout


def test_a_source_without_clients_says_so() -> None:
    with pytest.raises(ServerUnavailableError, match="pg_dump 13 cannot be had: its source holds the server alone"):
        postgres(13).program("pg_dump")


def test_a_cluster_in_a_given_folder_is_kept_with_its_password(short_path: Path) -> None:
    with PostgresServer(postgres(17), directory=short_path / "kept", encoding="LATIN1") as first:
        first.psql("create table kept (n int); insert into kept values (7)")

    with PostgresServer(postgres(17), directory=short_path / "kept") as second:
        assert second.password == first.password
        assert second.psql("select n from kept") == "7"
        assert second.psql("show server_encoding") == "LATIN1"


def test_a_killed_server_starts_again_on_the_same_port_with_what_was_committed() -> None:
    with PostgresServer(postgres(17)) as server:
        server.psql("create table kept (n int); insert into kept values (7)")
        port = server.port

        server.kill()
        server.start()

        assert server.port == port
        assert server.psql("select n from kept") == "7"


def test_a_cut_initdb_is_not_taken_for_a_cluster(short_path: Path) -> None:
    folder = short_path / "cut"
    (folder / "data.making").mkdir(parents=True)
    (folder / "data.making" / "PG_VERSION").write_text("17\n")
    (folder / "superuser-password").write_text("old\n")

    with PostgresServer(postgres(17), directory=folder, password="new") as server:
        assert server.psql("select 1") == "1"


def test_a_server_started_in_a_thread_outlives_the_thread() -> None:
    server = PostgresServer(postgres(17))
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    directory = server.directory

    try:
        assert server.psql("select 1") == "1"
    finally:
        server.close()
    assert not directory.exists()


@pytest.mark.parametrize(
    ("seconds", "kill"), [("0", False), ("600", True)], ids=["the owner just ends", "the owner is killed"]
)
def test_a_server_does_not_outlive_its_owner_and_its_folder_is_swept(seconds: str, *, kill: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, seconds], cwd=CHECKOUT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid, _, folder = owner.stdout.readline().decode().strip().partition(" ")
        postmaster = psutil.Process(int(pid))
        if kill:
            owner.send_signal(signal.SIGKILL)

    assert wait_until(lambda: not postmaster.is_running(), within_seconds=10)

    if kill:
        long_ago = time.time() - 3600
        os.utime(folder, (long_ago, long_ago))
        sweep()
    assert not Path(folder).exists()


def test_a_wrong_setting_fails_with_the_servers_own_words() -> None:
    with pytest.raises(ServerStartError, match='unrecognized configuration parameter "no_such_setting"'):
        PostgresServer(postgres(17), settings={"no_such_setting": "1"}).__enter__()


def test_a_given_port_that_is_taken_is_refused(postgres_server: PostgresServer) -> None:
    with pytest.raises(ServerStartError, match="Address already in use"):
        PostgresServer(postgres(17), port=postgres_server.port).__enter__()


def test_a_socket_folder_with_a_long_path_is_replaced_by_a_short_one(short_path: Path) -> None:
    with PostgresServer(postgres(17), directory=short_path / ("long" * 25)) as server:
        assert len(str(server.socket_directory)) < 60
        with psycopg.connect(
            f"host={server.socket_directory} port={server.port} user=postgres", password=server.password
        ):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another user")
def test_root_is_told_which_folder_its_server_may_not_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    with pytest.raises(ServerStartError, match="who may not enter"):
        PostgresServer(postgres(17), directory=tmp_path / "inside").__enter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another user")
def test_roots_server_runs_as_another_user_without_groups(postgres_server: PostgresServer) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{postgres_server.pid}/status").read_text().splitlines()
        if ":\t" in line
    )

    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert status["Groups"].strip() == ""


def test_grpcurl_is_built_and_runs() -> None:
    said = subprocess.run([grpcurl(), "-version"], capture_output=True, text=True, check=True)

    assert said.stdout + said.stderr != ""
