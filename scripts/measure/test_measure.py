"""python3 -m unittest discover -s scripts/measure -t scripts"""

import io
import os
import subprocess
import tempfile
import unittest
from unittest import mock
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path

from measure import client, compare, figures, goals, kept, links, load, loadtest, pgo, profiler, relay, reliability, report, samples, soak, sockets, tools
from measure.figures import P99, PER_COPY, VIEWERS, Spread
from measure.load import Run, Shape


def total(cost: float, **more) -> dict:
    return {
        "type": "total", "duration_s": 10.0, "offered_per_s": 4000.0, "delivered_per_s": 4000.0,
        "lost_frames": 0, "lost_groups": 0, "latency_us": {"p50": 400, "p99": 2000},
        "relay": {"cpu_us_per_copy": cost, "cpu_share": 0.25, "voluntary_switches": 900,
                  "involuntary_switches": 100, "rss_kib_per_connection": 30.5},
        **more,
    }


def runs(**costs: list) -> list[Run]:
    """Of chat, one run per round and mode; a round of None failed."""
    return [
        Run("chat", mode, n, "" if cost else "the relay fell over", total(cost) if cost else {})
        for mode, mine in costs.items() for n, cost in enumerate(mine, 1)
    ]


class Shapes(unittest.TestCase):
    def test_a_scenario_may_be_changed(self):
        shape = Shape.parse("chat:viewers=1000,frame-bytes=9")
        self.assertEqual(shape.scenario, "chat")
        self.assertEqual(shape.changes, ("--viewers", "1000", "--frame-bytes", "9"))
        self.assertEqual(Shape.parse("bench/x/mine.toml").name, "mine")

    def test_half_a_change_is_refused(self):
        for text in ("chat:viewers", "chat:viewers="):
            with self.assertRaises(ValueError):
                Shape.parse(text)

    def test_spans(self):
        for text, expected in (("6s", 6), ("500ms", 0.5), ("1m", 60), ("2.5", 2.5)):
            self.assertEqual(load.seconds(text), expected)
        with self.assertRaises(ValueError):
            load.seconds("soon")

    def test_lists_of_scenarios(self):
        self.assertEqual(
            compare.listed("chat,video hd:rate=1,viewers=2"),
            ["chat", "video", "hd:rate=1,viewers=2"])


class Links(unittest.TestCase):
    @staticmethod
    def run_of(mode: str, round_: int, soon: float, p99: float | None, **more) -> links.Run:
        in_time = {"p50": p99 and p99 / 2, "p95": p99, "p99": p99}
        seen = {"within_200_ms": soon, "within_1_s": soon, "in_time_ms": in_time}
        return links.Run("viewer", "rough", mode, round_, seen=seen, **more)

    def test_everything_is_asked_of_a_link_that_it_takes(self):
        takes = (tools.ROOT / "bench/link/src/args.rs").read_text()
        for link in links.LINKS.values():
            for word in link.arguments.split():
                if word.startswith("--"):
                    self.assertIn(f" {word[2:].replace('-', '_')}: ", takes)

    def test_rows_are_chosen(self):
        chosen = links.arguments(["--links", "narrow,clean", "--sides", "viewer", "--rounds", "1"])
        self.assertEqual((chosen.links, chosen.rounds), (["narrow", "clean"], 1))
        for wrong in (["--links", "wide"], ["--modes", "best"], ["--rounds", "0"]):
            with self.assertRaises(SystemExit), redirect_stderr(io.StringIO()):
                links.arguments(wrong)

    def test_a_row_is_paired_by_round(self):
        found = [self.run_of(mode, n, soon, p99) for mode, n, soon, p99 in (
            ("delay", 1, 1.0, 100), ("delay", 2, 0.9, 200), ("delay", 3, 0.8, 300),
            ("peer", 1, 0.9, 200), ("peer", 2, 0.5, 400), ("peer", 3, 0.6, 900))]
        self.assertEqual(
            links.cell(found, "viewer", "rough", "delay"), "90.0 / 90.0 %, 100 / 200 ms")
        self.assertEqual(
            links.against(found, "viewer", "rough", "delay"),
            "+20.0 / +20.0; 0.50 (0.33–0.50)")
        self.assertIn(links.LINKS["rough"].title, links.markdown(found, []))
        self.assertEqual(len(links.panels(found)), 2)

    def test_what_failed_or_never_came_is_said(self):
        failed = links.Run("viewer", "rough", "peer", 1, "it fell over")
        nothing = self.run_of("delay", 1, 0.0, None)
        self.assertEqual(
            links.cell([nothing], "viewer", "rough", "delay"), "0.0 / 0.0 %, – / – ms")
        self.assertEqual(links.against([nothing, failed], "viewer", "rough", "delay"), "–")
        self.assertIn("1 failed", links.cell([failed], "viewer", "rough", "peer"))
        self.assertIn("it fell over", links.markdown([nothing, failed], []))


class Sockets(unittest.TestCase):
    @staticmethod
    def run_of(mode: str, round_: int, cost: float) -> Run:
        said = {"frames": 200, "came": 100, "relay_us_per_frame": cost, "client_cores": 0.8,
                "age_ms": {"p50": 2.0, "p99": 8.0, "max": 9.0}}
        return Run("chat", mode, round_, total=said)

    def test_arguments(self):
        chosen = sockets.arguments(["link", "--link-duration", "10s"])
        self.assertEqual((chosen.shapes, chosen.link_duration), (["link"], 10.0))
        for wrong in (["hd"], ["--rounds", "0"], ["--relay-core", "1"], ["--by", "tcp"]):
            with self.assertRaises(SystemExit), redirect_stderr(io.StringIO()):
                sockets.arguments(wrong)

    def test_the_table_pairs_rounds(self):
        # The third round has no peer to be paired with.
        runs = [self.run_of(*run) for run in (
            ("ours", 1, 10.0), ("peer", 1, 40.0), ("peer", 2, 100.0), ("ours", 2, 50.0),
            ("ours", 3, 30.0))]
        runs.append(Run("chat", "peer", 3, "it fell over"))
        rows = sockets.shape_table(runs, "chat").splitlines()
        cost = next(row for row in rows if "per frame" in row)
        for text in ("30.0 (10.0–50.0)", "70.0 (40.0–100.0)", "0.38 (0.25–0.50)"):
            self.assertIn(text, cost)
        self.assertIn("the client is busy", sockets.told_briefly(runs[0]))
        self.assertIn("it fell over", sockets.told_briefly(runs[-1]))

    def test_where_http_is(self):
        for line in ('INFO web: listening addr=127.0.0.1:7 kind="http"',
                     "INFO listening addr=127.0.0.1:7 kind=http"):
            self.assertEqual(sockets.LISTENS.search(line).group(1), "127.0.0.1:7")
        self.assertIsNone(sockets.LISTENS.search("listening addr=127.0.0.1:7 kind=quic"))


class Guided(unittest.TestCase):
    def test_the_target_is_the_host(self):
        target = pgo.asked("rustc", "--print", "host-tuple")
        self.assertIn(f"\nhost: {target}\n", pgo.asked("rustc", "-vV"))
        with self.assertRaisesRegex(tools.Trouble, "rustc --print nonsense failed"):
            pgo.asked("rustc", "--print", "nonsense")

    def test_a_relay_that_left_no_profile(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(tools.Trouble, "left no profile"):
                pgo.merge("false", Path(folder), Path(folder) / "merged")

    def test_a_profile_of_another_version(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "1.profraw").touch()
            with self.assertRaisesRegex(tools.Trouble, "does not read the profile"):
                pgo.merge("false", Path(folder), Path(folder) / "merged")

    def test_a_tool_that_reads_no_profile_is_not_taken(self):
        with tempfile.TemporaryDirectory() as folder:
            tool = Path(folder) / "llvm-profdata"
            tool.write_text("#!/bin/sh\nexit 1\n")
            tool.chmod(0o755)
            with mock.patch.object(pgo, "asked", self.of_nothing(folder)):
                with mock.patch.dict("os.environ", PATH=f"{folder}:/bin"):
                    with self.assertRaisesRegex(tools.Trouble, f"{tool} cannot.*llvm-tools"):
                        pgo.profdata()

    @staticmethod
    def of_nothing(folder):
        return lambda *command: folder if "--print" in command else ""


class Soaks(unittest.TestCase):
    def test_growth_after_it_has_settled(self):
        # Fills for half an hour, then grows by 2 MB an hour.
        sizes = [(at, 30_000_000 + min(at, 1800) * 10_000 + max(0, at - 1800) * 2e6 / 3600)
                 for at in range(0, 7200, 10)]
        self.assertAlmostEqual(soak.slope(soak.settled(sizes, 7200)), 2.0, places=3)
        self.assertGreater(soak.slope(sizes), 4.0)

    def test_a_short_one_settles_in_its_first_quarter(self):
        self.assertEqual(soak.settled([(at, at) for at in range(120)], 120)[0], (30, 30))
        with self.assertRaisesRegex(tools.Trouble, "too short"):
            soak.slope([(3.0, 1)])

    def test_the_picture_begins_at_nothing(self):
        drawn = soak.picture([(0, 1 << 20), (60, 2 << 20)]).splitlines()
        self.assertEqual(len(drawn), soak.ROWS + 2)
        self.assertTrue(drawn[0].startswith("     2.0 MiB |") and drawn[0].endswith("| #"), drawn[0])
        self.assertTrue(drawn[-3].startswith("     0.2 MiB |#"), drawn[-3])


class Reliability(unittest.TestCase):
    def test_every_row_of_the_specification_is_there(self):
        self.assertEqual(list(reliability.ROWS), list(range(1, 27)))

    def test_a_test_that_is_not_there_has_not_passed(self):
        row = reliability.ROWS[2]
        self.assertTrue(reliability.has_run(row, "test result: ok. 1 passed; 0 failed"))
        self.assertFalse(reliability.has_run(row, "test result: ok. 0 passed; 0 failed"))

    def test_mail_that_takes_too_long(self):
        said = "  turn us deliveries\n  500 9000 191 {} 2000\n  2000 9000 547 1969 3000\n"
        self.assertTrue(reliability.is_prompt(said.format(1000)))
        self.assertFalse(reliability.is_prompt(said.format(1001)))
        self.assertFalse(reliability.is_prompt("no table"))

    def test_what_was_measured(self):
        said = "noise\nfigure: 3 KiB each\ntest result: ok. 2 passed; 0 failed; 1 x; finished in 3 s"
        self.assertEqual(reliability.measured(reliability.ROWS[4], said), "3 KiB each")
        told = reliability.measured(reliability.ROWS[25], said)
        self.assertEqual(told, "test result: ok. 2 passed, in 3 s")


class Outcomes(unittest.TestCase):
    def test_the_last_line_counts(self):
        found = [{"type": "start"}, {"type": "second"}, {"type": "total", "viewers": 3}]
        self.assertEqual(load.outcome(found, 0, ""), (found[-1], ""))

    def test_a_search_tells_how_busy_the_client_was(self):
        found = [{"type": "probe", "load_cpu_share": share} for share in (0.4, 0.9)]
        end, _ = load.outcome([*found, {"type": "max", "viewers": 300}], 0, "")
        self.assertEqual(figures.blemish(end), "the load client used 90% of its core")

    def test_no_total_is_no_measurement(self):
        self.assertEqual(load.outcome([{"type": "second"}], 0, "")[0], {})
        self.assertEqual(load.outcome([{"type": "total"}], 1, "refused"), ({}, "refused"))
        self.assertIn("not finished", load.outcome([], None, "")[1])

    def test_runs_are_kept_as_lines(self):
        run = Run("chat", "ours", 2, "", total(50))
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "of"
            kept.begin(out, ["a fact"])
            (out / "runs.jsonl").write_text(kept.line(run))
            lines, facts = kept.earlier(out)
        self.assertEqual(([Run(**line) for line in lines], facts), ([run], ["a fact"]))


class Clients(unittest.TestCase):
    def test_what_it_said_or_why_not(self):
        core = str(min(os.sched_getaffinity(0)))
        self.assertEqual(client.told(core, ["echo", '{"came": 3}'], 10), ({"came": 3}, ""))
        refused = ["sh", "-c", "echo '{}'; echo refused >&2; exit 1"]
        self.assertEqual(client.told(core, refused, 10), ({}, "refused"))
        said, failure = client.told(core, ["sleep", 10], 0.1)
        self.assertEqual(said, {})
        self.assertIn("timed out", failure)


class Relays(unittest.TestCase):
    def test_every_relay_says_where_it_listens(self):
        for line, address in (
            ("INFO shardcast: listening addr=127.0.0.1:5301 kind=quic", "127.0.0.1:5301"),
            ('INFO moq_relay::relay: listening addr=[::1]:4 kind="quic"', "[::1]:4"),
        ):
            self.assertEqual(relay.LISTENS.search(line).group(1), address)
        self.assertIsNone(relay.LISTENS.search("listening addr=127.0.0.1:1 kind=http"))


    def test_the_reason_is_found(self):
        self.assertEqual(relay.last_words("INFO a\n\nrelay: port taken\n"), "relay: port taken")
        self.assertEqual(
            relay.last_words("error: no option --x\n\nFor more information, try '--help'.\n"),
            "error: no option --x")
        self.assertEqual(relay.last_words("\n"), "it says nothing")


class Figures(unittest.TestCase):
    def test_median_and_extremes(self):
        self.assertEqual(Spread.of([3, 1, 10]), Spread(3, 1, 10, 3))
        self.assertIsNone(Spread.of([]))

    def test_ratios_are_paired_by_round(self):
        # The machine was slow in round 2, for both: the ratio does not see it.
        found = runs(A=[10, 20, 10], B=[20, 40, 20])
        a, b = (figures.by_round(found, PER_COPY, "chat", mode) for mode in "AB")
        self.assertEqual(figures.ratio(a, b), Spread(0.5, 0.5, 0.5, 3))

    def test_a_failed_round_has_no_pair(self):
        found = runs(A=[10, None, 10], B=[20, 40, None])
        a, b = (figures.by_round(found, PER_COPY, "chat", mode) for mode in "AB")
        self.assertEqual(figures.ratio(a, b), Spread(0.5, 0.5, 0.5, 1))

    def test_the_best_has_the_lowest_median(self):
        found = runs(peer=[100, 100, 10], workers=[50, 60, 70])
        self.assertEqual(figures.best(found, PER_COPY, "chat", ("peer", "workers")), "workers")
        self.assertIsNone(figures.best(found, PER_COPY, "video", ("peer", "workers")))

    def test_most_viewers_are_best(self):
        found = [Run("video", mode, 1, "", {"type": "max", "viewers": n})
                 for mode, n in (("peer", 100), ("workers", 200))]
        self.assertEqual(figures.best(found, VIEWERS, "video", ("peer", "workers")), "workers")

    def test_what_cannot_be_divided_is_a_share(self):
        self.assertIsNone(figures.SHARE.of(total(50)))
        idle = {"type": "total", "relay": {"cpu_share": 0.08}}
        self.assertAlmostEqual(figures.SHARE.of(idle), 8)
        self.assertIsNone(P99.of(idle))

    def test_switches(self):
        self.assertEqual(figures.switches(total(50)), 100)

    def test_blemishes(self):
        self.assertEqual(figures.blemish(total(50)), "")
        self.assertEqual(figures.blemish(total(50, lost_frames=3)), "lost 3 frames")
        self.assertIn("50%", figures.blemish(total(50, delivered_per_s=2000.0)))
        self.assertIn("load client", figures.blemish(total(50, load={"cpu_share": 0.97})))


class Tables(unittest.TestCase):
    def test_columns_are_aligned(self):
        self.assertEqual(
            report.table(["Name", "n"], [["a", "1"], ["longer", "1,000"]]),
            "| Name   |     n |\n"
            "|--------|------:|\n"
            "| a      |     1 |\n"
            "| longer | 1,000 |")

    def test_a_comparison(self):
        found = runs(ours=[10, 12, 11], peer=[100, 100, 100], workers=[50, 50, 50])
        drawn = report.figure_table(
            found, PER_COPY, ["ours", "peer", "workers"],
            [report.Comparison("ours / best", "ours", ("peer", "workers"))])
        row = [cell.strip() for cell in drawn.splitlines()[2].strip("|").split("|")]
        self.assertEqual(row, [
            "chat", "11.0 (10.0–12.0)", "100.0 (100.0–100.0)", "50.0 (50.0–50.0)",
            "0.22 (0.20–0.24), workers"])

    def test_failures_are_shown(self):
        found = runs(ours=[10, 12], peer=[None, None])
        text = report.markdown(found, ["a fact"], [])
        self.assertIn("2 of 2 failed", text)
        self.assertIn("* round 1, chat, peer: failed: the relay fell over", text)

    def test_columns_without_content_are_left_out(self):
        found = [*runs(ours=[10]), Run("idle", "peer", 1, "", {"relay": {"cpu_share": 0.1}})]
        self.assertNotIn("peer", report.figure_table(found, PER_COPY, ["ours", "peer"], []))

    def test_a_row_of_the_load_test(self):
        self.assertEqual(
            loadtest.row("chat", total(56.3)),
            ["chat", "4,000", "4,000", "25.0", "56.3", "0.40", "2.00", "0", "30.5", "100"])


class Goals(unittest.TestCase):
    def verdict(self, title: str, found: list[Run]) -> str:
        goal = next(goal for goal in goals.GOALS if goal.title.startswith(title))
        return goals.verdict(goal, goals.reached(goal, found))

    def test_verdicts(self):
        chat = "chat: CPU per delivered frame, ours / best peer"
        self.assertEqual(self.verdict(chat, runs(ours=[21], peer=[100])), "reached")
        self.assertEqual(self.verdict(chat, runs(ours=[26], peer=[100])), "missed")
        self.assertEqual(self.verdict(chat, runs(ours=[24], peer=[None])), "not measured")

    def test_more_viewers_are_better(self):
        def found(ours: int) -> list[Run]:
            return [Run(goals.SEARCH, mode, 1, "", {"type": "max", "viewers": n})
                    for mode, n in (("ours", ours), ("peer", 100))]

        self.assertEqual(self.verdict(goals.SEARCH, found(250)), "reached")
        self.assertEqual(self.verdict(goals.SEARCH, found(150)), "missed")

    def test_every_goal_is_measured_by_what_targets_runs(self):
        chosen = compare.arguments(["--targets"])
        labels = {shape.label for shape in chosen.shapes}
        for goal in goals.GOALS:
            for side in filter(None, (goal.above, goal.below)):
                self.assertIn(side[0], labels, goal.title)


class Turns(unittest.TestCase):
    def test_a_share_of_a_core_is_for_searches(self):
        chosen = compare.arguments(["--find-max", "--relay-share", "0.5", "--veth"])
        self.assertEqual((chosen.relay_share, chosen.veth), (0.5, True))
        self.assertIn("50%", compare.left_with(chosen))
        for wrong in (["--relay-share", "0.5"], ["--find-max", "--relay-share", "0"]):
            with self.assertRaises(SystemExit), redirect_stderr(io.StringIO()):
                compare.arguments(wrong)

    def mode(self, name: str) -> relay.Mode:
        return relay.Mode(name, None, (), "0", relay.FAN_OUT if name == "ceiling" else None)

    def test_targets_run_only_what_is_judged(self):
        chosen = compare.arguments(["--targets", "--max-rounds", "1"])
        names = ["ours", "ceiling", "peer", "ours-2shards"]
        plan = {turn.shape.label: turn for turn in
                compare.turns(chosen, [self.mode(name) for name in names])}
        given = {label: [mode.name for mode in turn.modes] for label, turn in plan.items()}
        self.assertEqual(given["chat"], names)
        self.assertEqual(given["video"], ["ours", "ceiling", "peer"])
        self.assertEqual(given["meeting"], ["ours", "ceiling", "peer"])
        self.assertEqual(given["idle"], ["ours", "peer"])
        self.assertEqual(given[goals.MANY], ["ours"])
        self.assertEqual(plan[goals.SEARCH].rounds, 1)

    def test_everybody_is_first_once(self):
        orders = [compare.order(["a", "b", "c"], n) for n in range(3)]
        self.assertEqual([order[0] for order in orders], ["a", "b", "c"])
        for order in orders:
            self.assertEqual(sorted(order), ["a", "b", "c"])


class Samples(unittest.TestCase):
    SCRIPT = """\
shard-0  123  10.5:  1001001 cpu-clock:
	ffffffff811 _raw_spin_unlock+0x15 ([kernel.kallsyms])
	    55d0c0 <shardcast::shard::Shard as core::fmt::Debug>::fmt::h0123456789abcdef+0x4 (/x/relay)

shard-0  123  10.6:  1001001 cpu-clock:
	    55d0c0 shardcast::shard::turn::h0123456789abcdef+0x4 (/x/relay)

shard-0  123  10.7:  1001001 cpu-clock:
	    55d0c0 shardcast::shard::turn::h0123456789abcdee+0x8 (/x/relay)

shard-0  123  10.8:  1001001 cpu-clock:
	    55d0c9 [unknown] (/usr/lib/libc.so.6)

"""

    def test_a_sample_belongs_to_its_first_frame(self):
        found = samples.leaves(self.SCRIPT.splitlines(keepends=True))
        self.assertEqual(found.total(), 4)
        self.assertEqual(samples.by_symbol(found), {
            ("shardcast::shard::turn", "ours"): 2, ("_raw_spin_unlock (kernel)", "kernel"): 1,
            ("[unknown] (libc.so.6)", "libraries"): 1})
        self.assertEqual(samples.by_layer(found), {"ours": 2, "kernel": 1, "libraries": 1})
        self.assertEqual(
            samples.by_module(found), {"shardcast::shard": 2, "[kernel]": 1, "libc.so.6": 1})
        self.assertEqual(samples.shares(samples.by_module(found), 1), [("shardcast::shard", 50.0)])

    def test_layers(self):
        for symbol, expected in (
            ("<quinn_proto::connection::Connection>::poll", "QUIC"),
            ("aws_lc_0_47_0_aes_gcm_encrypt", "crypto"),
            ("<rustls::quic::PacketKey>::decrypt", "crypto"),
            ("_rjem_je_malloc_default", "allocator"),
            ("shardcast::session::serve", "ours"),
            ("core::ptr::drop_in_place", "libraries"),
        ):
            place = samples.Place(symbol, samples.module(symbol, "/x/relay"))
            self.assertEqual(samples.layer(place), expected, symbol)

    def test_the_tables_of_a_profile_fit_a_terminal(self):
        long = "<shardcast::session::Session>::" + "serve_groups" * 20
        found = Counter({samples.Place(long, "shardcast::session"): 3})
        text = profiler.tables(found, "title", 80)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertRegex(text, "<shardcast::.*….*serve_groups .*ours")
        self.assertIn(long, profiler.tables(found, "title", None))

    def test_modules(self):
        for symbol, expected in (
            ("<quinn_proto::connection::Connection>::poll", "quinn_proto"),
            ("core::ptr::drop_in_place", "core"),
            ("<alloc::vec::Vec<T> as core::ops::Drop>::drop", "alloc"),
            ("aes_gcm_encrypt", "C in relay"),
        ):
            self.assertEqual(samples.module(symbol, "/x/relay"), expected)
        self.assertEqual(samples.module("[unknown]", "[vdso]"), "[vdso]")


class Help(unittest.TestCase):
    def test_every_script_has_an_example(self):
        folder = Path(__file__).resolve().parent.parent
        scripts = [*folder.glob("*.sh"), *(path for path in folder.glob("*.py") if os.access(path, os.X_OK))]
        self.assertGreater(len(scripts), 15)
        for script in sorted(scripts):
            with self.subTest(script.name):
                said = subprocess.run(
                    [script, "--help"], capture_output=True, text=True, timeout=60)
                self.assertEqual(said.returncode, 0, said.stderr)
                self.assertRegex(said.stdout, rf"(?i)examples?:\s.*scripts/{script.name}")


if __name__ == "__main__":
    unittest.main()
