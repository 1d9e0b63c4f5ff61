#!/usr/bin/env python3
"""Measures queries on RustyDB beside PostgreSQL 15, on this machine, in one run, and prints ratios.

  scripts/bench-queries.py             about 6 minutes: tables like TPC-H's at a tenth of its scale, 3 runs
  scripts/bench-queries.py --quick     about 1 minute: a tenth of that, 1 run
  options: --scale N (thousandths of TPC-H's scale factor), --runs N, --only NAME[,NAME...], --json FILE, --base-port N

RustyDB runs as three nodes, as `rustydb dev` starts them, queries go to the leader; PostgreSQL as its package comes, with
512 MB of shared_buffers as RustyDB's nodes have 512 MiB. Both have work_mem = 4MB. Figures are medians of a query's
runs, in milliseconds, as psql measures them. What both answer is compared. Last comes the processor time that the
server spends on a prepared statement for one row, without that for a statement that does nothing.
"""
import argparse, json, os, pathlib, re, shutil, signal, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path("/usr/lib/postgresql/15/bin")
QUERIES = ROOT / "tests" / "queries"

LARGE_SETUP = """
create table big (a int, b int);
insert into big select i, (i * 48271::bigint % 1000003)::int from generate_series(1, {rows}) as g(i);
create table other (a int, b int);
insert into other select i, (i * 69621::bigint % 1000003)::int from generate_series(1, {rows}) as g(i);
analyze;
"""
LARGE = {
    "count": "select count(*) from big",
    "filter": "select count(*) from big where b % 7 = 3",
    "sort": "select a, b from big order by b offset {last}",
    "top 5": "select a, b from big order by b limit 5",
    "hash join": "select count(*), sum(x.b) from big x join other y on x.a = y.b",
    "group, 100": "select b % 100, count(*), sum(a) from big group by 1 order by 1",
    "group, all": "select count(*), sum(c) from (select b, count(*) as c from big group by b) s",
    "distinct": "select count(*) from (select distinct b from big) s",
    "window": "select sum(r) from (select row_number() over (order by b) as r from big) s",
}
FIVE_TABLES = """explain (costs off) select n_name, sum(l_extendedprice) from customer, orders, lineitem, supplier, nation
where c_custkey = o_custkey and l_orderkey = o_orderkey and l_suppkey = s_suppkey and s_nationkey = n_nationkey and o_orderdate < '1994-01-01' group by n_name;
"""
POINTS = {
    "nothing": "select :id;",
    "SELECT": "select b from point where a = :id;",
    "UPDATE": "update point set b = b + 1 where a = :id;",
    "INSERT": "insert into point_log (a, b) values (:id, 1);",
}


def run(command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait(what, ready, seconds=60):
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            sys.exit(f"error: {what} is not ready after {seconds} s")
        time.sleep(0.05)


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        # With what ended children used, in which PostgreSQL's connections are counted.
        total += sum(int(fields[place]) for place in (11, 12, 13, 14))
    return total / os.sysconf("SC_CLK_TCK")


class Server:
    def psql(self, *arguments, text=None, check=True):
        command = ["psql", "-XqAt", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres", *arguments]
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if check and (done.returncode != 0 or "ERROR" in done.stderr):
            sys.exit(f"error at port {self.port}: {done.stderr[-2000:]}")
        return done.stdout, done.stderr

    def timed(self, query, runs, timeout):
        """Medians of the runs in ms, and what was answered; without a figure, the error."""
        text = f"set work_mem = '4MB';\nset statement_timeout = '{timeout}s';\n\\timing on\n" + query.rstrip("; \n") + ";\n"
        times, answer = [], None
        for _ in range(runs):
            out, errors = self.psql(text=text, check=False)
            if errors:
                return None, errors.strip().splitlines()[0]
            lines = out.splitlines()
            figure = re.search(r"Time: ([\d.]+) ms", lines[-1])
            times.append(float(figure.group(1)))
            answer = lines[:-1]
        return statistics.median(times), answer


class Postgres(Server):
    name = "PostgreSQL"

    def __init__(self, work, port):
        if not (BIN / "initdb").exists():
            run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "postgresql-15", "postgresql-contrib"],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        self.port, self.data, self.prefix = port, work / "postgresql", []
        if os.geteuid() == 0:
            self.prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "env", "HOME=/tmp"]
            shutil.chown(work, "postgres")
        run([*self.prefix, BIN / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"], cwd=work)
        options = f"-p {port} -k '' -c listen_addresses=127.0.0.1 -c shared_buffers=512MB -c max_wal_size=4GB"
        run([*self.prefix, BIN / "pg_ctl", "-w", "-D", self.data, "-l", work / "postgresql.log", "-o", options, "start"], cwd=work)

    def pids(self):
        main = (self.data / "postmaster.pid").read_text().splitlines()[0]
        children = subprocess.run(["pgrep", "-P", main], stdout=subprocess.PIPE, text=True).stdout.split()
        return [main, *children]

    def stop(self):
        subprocess.run([*self.prefix, BIN / "pg_ctl", "-D", self.data, "-m", "fast", "stop"], stdout=subprocess.DEVNULL, cwd="/")


class RustyDb(Server):
    name = "RustyDB"

    def __init__(self, work, base_port, target):
        self.data, self.log = work / "rustydb", work / "rustydb.log"
        self.process = subprocess.Popen([target / "rustydb", "dev", "--data", self.data, "--base-port", str(base_port)],
                                        stdout=self.log.open("w"), stderr=subprocess.STDOUT)
        wait("RustyDB", lambda: "\nready\n" in "\n" + self.log.read_text())
        command = [target / "rustydb-cli", "--host", "127.0.0.1", "--port", str(base_port + 101), "--json", "cluster", "status"]
        status = json.loads(run(command))
        self.leader = next(database["leader"] for database in status["databases"] if database["name"] == "postgres")
        self.port = base_port + self.leader

    def pids(self):
        return [(self.data / f"node-{self.leader}" / "rustydb.pid").read_text().split()[0]]

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


def ratio_line(name, ours, theirs, note=""):
    show = lambda value: f"{value:11.1f}" if value is not None else f"{'-':>11}"
    ratio = f"{ours / theirs:8.2f}" if ours is not None and theirs else f"{'-':>8}"
    print(f"{name:<14}{show(ours)}{show(theirs)}{ratio}  {note}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scale", type=int)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--only")
    parser.add_argument("--json")
    parser.add_argument("--base-port", type=int, default=15300)
    given = parser.parse_args()
    scale = given.scale or (10 if given.quick else 100)
    runs = given.runs or (1 if given.quick else 3)
    rows = 100_000 if given.quick else 1_000_000
    only = set(given.only.split(",")) if given.only else None
    wanted = lambda name: only is None or name in only
    run(["cargo", "build", "--release", "--quiet", "--bin", "rustydb", "--bin", "rustydb-cli"], cwd=ROOT)
    metadata = json.loads(run(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT))
    target = pathlib.Path(metadata["target_directory"]) / "release"
    work = pathlib.Path(tempfile.mkdtemp(prefix="rustydb-queries.", dir="/var/tmp"))
    work.chmod(0o755)
    servers, results = [], {}
    try:
        servers.append(RustyDb(work, given.base_port, target))
        servers.append(Postgres(work, given.base_port + 90))
        ours, theirs = servers
        print(f"{'':<14}{'RustyDB ms':>11}{'PG ms':>11}{'ratio':>8}")

        def both(name, query):
            (mine, answer), (other, expected) = (server.timed(query, runs, 120) for server in servers)
            note = ""
            if mine is None or other is None:
                note = str(answer if mine is None else expected)
            elif answer != expected:
                note = "the answers differ"
            ratio_line(name, mine, other, note)
            results[name] = dict(rustydb_ms=mine, postgresql_ms=other, note=note)

        loads = []
        for server in servers:
            begun = time.monotonic()
            server.psql("-v", f"scale={scale}", "-v", "ON_ERROR_STOP=1", "-f", QUERIES / "schema.sql")
            server.psql(text=LARGE_SETUP.format(rows=rows))
            loads.append((time.monotonic() - begun) * 1000)
        ratio_line("loading", *loads)
        for part in re.split(r"^-- (\d+)\n", (QUERIES / "queries.sql").read_text(), flags=re.M)[1:]:
            if part.isdigit():
                name = f"query {part}"
            elif wanted(name):
                both(name, part)
        for name, query in LARGE.items():
            if wanted(name):
                both(name, query.format(last=rows - 1))
        if wanted("plan"):
            figures = []
            for server in servers:
                out, _ = server.psql(text="\\timing on\n" + FIVE_TABLES * 200)
                figures.append(statistics.median(float(found) for found in re.findall(r"Time: ([\d.]+) ms", out)))
            ratio_line("plan", *figures, "EXPLAIN of a join of five tables, with its way")
            results["plan"] = dict(rustydb_ms=figures[0], postgresql_ms=figures[1], note="")
        if wanted("points"):
            for server in servers:
                server.psql(text=f"create table point (a int primary key, b int); insert into point select i, 0 from generate_series(1, {rows}) g(i);"
                                 "create table point_log (id bigint generated always as identity primary key, a int, b int);")
            spent = {}
            for name, statement in POINTS.items():
                script = work / "point.sql"
                script.write_text(f"\\set id random(1, {rows})\n{statement}\n")
                for server in servers:
                    seconds = 3 if given.quick else 10
                    command = ["pgbench", "-n", "-M", "prepared", "-c", "1", "-T", str(seconds), "-h", "127.0.0.1", "-p", str(server.port),
                               "-U", "postgres", "-f", script, "postgres"]
                    before = cpu_seconds(server.pids())
                    out = run(command)
                    used = cpu_seconds(server.pids()) - before
                    count = int(re.search(r"actually processed: (\d+)", out).group(1))
                    spent[name, server.name] = used / count * 1e6
            print("\nmicroseconds of the server's processors for a prepared statement over one row, one client")
            print(f"{'':<14}{'RustyDB':>11}{'PG':>11}   (all, the way of the message with it)")
            for name in POINTS:
                values = [spent[name, server.name] for server in servers]
                beyond = [value - spent["nothing", server.name] for value, server in zip(values, servers)]
                if name == "nothing":
                    print(f"{name:<14}{values[0]:11.1f}{values[1]:11.1f}")
                else:
                    print(f"{name:<14}{beyond[0]:11.1f}{beyond[1]:11.1f}   ({values[0]:.1f}, {values[1]:.1f})")
                    results[f"cpu {name}"] = dict(rustydb_us=beyond[0], postgresql_us=beyond[1])
    finally:
        for server in reversed(servers):
            server.stop()
        shutil.rmtree(work, ignore_errors=True)
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(dict(scale=scale, runs=runs, results=results), indent=1) + "\n")


main()
