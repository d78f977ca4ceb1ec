"""What else a machine does while rows are measured: how it is read, sampled, judged and said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.analysis.disturbances import disturbances, is_busy
from precisionbench.measure.monitor import Monitor
from precisionbench.report.disturbances import disturbance_text
from precisionbench.results import (
    Block,
    ComparisonData,
    CpuUse,
    DeviceState,
    Preparation,
    RoundConditions,
    json_format,
)
from precisionbench.results.journal import Journal
from precisionbench.system.cpu_affinity import usable_cores
from precisionbench.system.cpu_times import CpuTimes, read_cpu_times
from precisionbench.workflows.ladder import Ladder

ROUNDS = 12
TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

# --- what others did to the times -----------------------------------------------------------------


def run(
    latency: Callable[[int], float] = lambda _: 1.0,
    conditions: Sequence[RoundConditions] = (),
    state: Callable[[int], DeviceState | None] = lambda _: None,
    schedule: str = "rounds",
    rounds: int = ROUNDS,
) -> ComparisonData:
    """Two rows of two replicas, whose blocks take `latency(round)` times as long as usual."""
    data = comparison_data()
    results = []
    for number, row in enumerate(data.results):
        blocks = tuple(
            Block(i, 2 * number + replica, replica, (0.01 * latency(i),) * 5, state=state(i))
            for i in range(rounds)
            for replica in range(2)
        )
        measured = attrs.evolve(
            row.measurement,
            blocks=blocks,
            preparations=tuple(Preparation(1.0, 0.1, 30, replica) for replica in range(2)),
        )
        results.append(attrs.evolve(row, measurement=measured))
    return attrs.evolve(
        data, schedule=schedule, results=tuple(results), conditions=tuple(conditions)
    )


def use(others: float, cores: int = 2, wall_s: float = 1.0, own: float = 0.4) -> CpuUse:
    """Others kept `others` cores busy, and we `own`."""
    return CpuUse(wall_s, cores, (others + own) * wall_s, own * wall_s)


def load_in(busy_rounds: Sequence[int], others: float = 1.6, **names: tuple[str, ...]):
    """Others use the CPU in some rounds only."""
    return [
        RoundConditions(i, i, cpu=use(others if i in busy_rounds else 0.01), **names)
        for i in range(ROUNDS)
    ]


def slower_in(rounds: Sequence[int], factor: float = 1.31) -> Callable[[int], float]:
    return lambda i: factor if i in rounds else 1.0


def test_others_that_slow_some_rounds_down_are_said_with_what_that_did_to_the_intervals():
    busy = (1, 4, 6, 7, 9, 10)
    data = run(slower_in(busy), load_in(busy))
    found = disturbances(data)
    assert found.slowdown == pytest.approx(0.31)
    widths = [one.relative_half_width for one in (found.widest_without, found.widest)]
    assert widths[0] < 0.01 < 0.1 < widths[1]
    text = disturbance_text(data)
    assert text.startswith(
        "other processes used 1.6 of 2 CPU cores in 6 of 12 rounds; blocks in those rounds took "
        "31 % longer than in the others, and without them the widest interval of a latency would "
        "be ±0.1% instead of ±"
    )
    assert text.endswith("; end other programs, or measure when they are idle")


def test_with_few_quiet_rounds_the_intervals_without_the_others_are_not_shown():
    busy = range(10)
    text = disturbance_text(run(slower_in(busy), load_in(busy)))
    assert "in 10 of 12 rounds; blocks in those rounds took 31 % longer than in the others" in text
    assert "and the intervals include that" in text


def test_where_all_rounds_were_busy_there_is_nothing_to_compare_with():
    text = disturbance_text(run(conditions=load_in(range(ROUNDS))))
    assert "cores in all 12 rounds; there is no undisturbed round to compare with" in text
    assert "longer" not in text


def test_others_that_changed_nothing_are_said_to_have_changed_nothing():
    busy = range(3, 7)
    text = disturbance_text(run(conditions=load_in(busy)))
    assert "in 4 of 12 rounds; blocks in those rounds took as long as in the others" in text


def test_the_comparison_is_made_within_each_process():
    """The second process is twice as slow, and the busy rounds hardly have one of its blocks."""
    busy = (0, 1, 2, 3, 4, 5)
    data = run(slower_in(busy, 1.10), load_in(busy))
    results = []
    for row in data.results:
        blocks = tuple(
            attrs.evolve(b, samples=tuple(s * 2 for s in b.samples)) if b.replica else b
            for b in row.measurement.blocks
            if b.replica == 0 or b.round >= 5
        )
        changed = attrs.evolve(row.measurement, blocks=blocks)
        results.append(attrs.evolve(row, measurement=changed))
    assert disturbances(attrs.evolve(data, results=tuple(results))).slowdown == pytest.approx(0.1)


def test_rows_that_are_restarted_are_compared_over_their_processes():
    """Each round has processes of its own, so none has both busy and quiet rounds."""
    data = run(slower_in((0, 1, 2)), load_in((0, 1, 2)), schedule="restarts")
    results = []
    for row in data.results:
        blocks = tuple(
            attrs.evolve(b, replica=b.round) for b in row.measurement.blocks if b.replica == 0
        )
        preparations = tuple(Preparation(1.0, 0.1, 30, i) for i in range(ROUNDS))
        changed = attrs.evolve(row.measurement, blocks=blocks, preparations=preparations)
        results.append(attrs.evolve(row, measurement=changed))
    data = attrs.evolve(data, results=tuple(results))
    assert disturbances(data).slowdown == pytest.approx(0.31)


def test_rows_measured_one_after_another_have_rounds_of_their_own():
    """Others were busy while `half` was measured, in rounds of the same numbers as eager's."""
    conditions = [
        RoundConditions(i, i, row=row, cpu=use(1.0 if row == "half" else 0.0))
        for row in ("eager", "half")
        for i in range(ROUNDS)
    ]
    found = disturbances(run(conditions=conditions, schedule="sequential"))
    assert (found.causes[0].rounds, found.rounds) == (ROUNDS, 2 * ROUNDS)
    assert found.slowdown is None


def test_one_sample_can_stand_for_several_short_rounds():
    conditions = [RoundConditions(0, 7, cpu=use(0.0)), RoundConditions(8, 11, cpu=use(1.0))]
    (cause,) = disturbances(run(conditions=conditions)).causes
    assert cause.rounds == 4


def test_rounds_that_were_not_finished_do_not_count():
    conditions = [*load_in([]), RoundConditions(ROUNDS, ROUNDS + 20, cpu=use(1.0))]
    assert disturbances(run(conditions=conditions)) is None


@pytest.mark.parametrize(
    ("cpu", "busy"),
    [
        (use(0.1), False),
        (use(0.3), True),
        (use(0.3, cores=64), False),  # the scheduler finds other cores
        (use(5.0, cores=64), True),
        (use(0.4, wall_s=0.1), False),  # 40 ms can be rounding
        (use(0.0, own=2.0), False),
        (CpuUse(1.0, 2, 1.9, 2.1), False),  # our own time is read a moment later
    ],
)
def test_a_quarter_of_a_core_or_a_twentieth_of_many_disturbs(cpu, busy):
    assert is_busy(cpu) is busy


def test_a_machine_that_was_busy_for_a_moment_is_not_mentioned():
    assert disturbance_text(run(conditions=load_in([3]))) == ""
    assert disturbances(run(conditions=load_in([]))) is None


def test_other_processes_on_the_gpu_are_named_with_what_they_did():
    others = ("python (process 7)",)
    conditions = [
        RoundConditions(i, i, gpu_processes=others if i < 6 else ()) for i in range(ROUNDS)
    ]
    text = disturbance_text(run(slower_in(range(6), 2.0), conditions))
    assert text.startswith(
        "other processes used this GPU (python (process 7)) in 6 of 12 rounds; blocks in those "
        "rounds took 100 % longer than in the others"
    )


HOT = DeviceState(throttled=("sw_thermal_slowdown", "sw_power_cap"))
CAPPED = DeviceState(throttled=("sw_power_cap",))


def test_throttling_is_reported_once():
    data = run(slower_in((0, 1)), load_in([]), state=lambda i: HOT if i < 2 else None)
    text = " ".join(str(pb.Comparison(data)).split())
    assert text.count("throttled") == 1
    assert "the GPU was throttled (sw_thermal_slowdown, sw_power_cap) in 2 of 12" in text
    assert "cool the device" in text


def test_a_device_at_its_power_cap_is_no_disturbance():
    assert disturbance_text(run(conditions=load_in([]), state=lambda _: CAPPED)) == ""


def test_several_disturbances_are_one_sentence():
    conditions = load_in((0, 1), gpu_processes=("Xorg (process 9)",))
    text = disturbance_text(run(conditions=conditions, state=lambda i: HOT if i < 2 else None))
    assert text.startswith(
        "other processes used 1.6 of 2 CPU cores in 2 of 12 rounds and other processes used "
        "this GPU (Xorg (process 9)) in all 12 rounds and the GPU was throttled"
    )
    assert text.count("end other programs") == 1


# --- where it is said, and kept -------------------------------------------------------------------


@pytest.fixture
def disturbed() -> pb.Comparison:
    return pb.Comparison(run(slower_in(range(6)), load_in(range(6))))


def test_it_stands_above_every_table(disturbed, tmp_path):
    sentence = disturbance_text(disturbed.data)
    text = str(disturbed)
    assert text.index("Disturbed: other processes used 1.6 of 2") < text.index("speed-up")
    markdown = disturbed.to_markdown()
    assert markdown.index(f"**Disturbed:** {sentence}") < markdown.index("| backend")
    notebook = disturbed._repr_html_()
    assert notebook.index(sentence) < notebook.index("<table")
    disturbed.to_html(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page.index('id="verdict"') < page.index(sentence) < page.index("<nav")


def test_a_ladder_says_it_as_well(disturbed):
    text = str(Ladder.of(disturbed, "eager"))
    assert text.index("Disturbed: other processes used 1.6 of 2") < text.index("items/s")


def test_a_quiet_run_says_nothing():
    quiet = pb.Comparison(run(conditions=load_in([])))
    for text in (str(quiet), quiet.to_markdown(), quiet._repr_html_()):
        assert "Disturbed" not in text


def test_samples_are_kept_in_files_and_journals(disturbed, tmp_path):
    disturbed.save(tmp_path / "r.json")
    assert pb.load(tmp_path / "r.json").data.conditions == disturbed.data.conditions
    journal = started_journal(tmp_path, disturbed.data)
    for one in disturbed.data.conditions:
        journal.add_conditions(one)
    journal.close()
    assert pb.load(tmp_path / "journal").data.conditions == disturbed.data.conditions


def test_samples_of_an_abandoned_schedule_are_dropped_from_the_journal(disturbed, tmp_path):
    journal = started_journal(tmp_path, disturbed.data)
    journal.add_conditions(RoundConditions(0, 0))
    journal.change_schedule("restarts")
    write_row(journal, disturbed.data)
    journal.add_conditions(RoundConditions(1, 1))
    journal.close()
    assert pb.load(tmp_path / "journal").data.conditions == (RoundConditions(1, 1),)


def started_journal(folder: Path, data: ComparisonData) -> Journal:
    """A journal with one row of one block."""
    header = json_format.unstructured(data)
    for name in ("results", "failures", "conditions"):
        del header[name]
    row = data.results[0]
    identity = {"backend": row.backend, "name": row.name, "options": dict(row.options)}
    journal = Journal(folder / "journal", header, [identity])
    write_row(journal, data)
    return journal


def write_row(journal: Journal, data: ComparisonData) -> None:
    row = data.results[0]
    journal.add_row(row, 0)
    journal.add_block(row.backend, row.measurement.blocks[0])


def test_files_without_samples_are_written_again_as_they_were():
    old = json_format.to_json(run())
    assert "conditions" not in json.loads(old)
    again = json_format.from_json(old)
    assert json_format.to_json(again) == old
    assert disturbances(again) is None


# --- sampling -------------------------------------------------------------------------------------


class Machine:
    """A machine whose clock and CPU times a test sets; reading them takes a while."""

    def __init__(self, reading_s: float = 0.001) -> None:
        self.now_s, self.busy_s, self.reading_s = 100.0, 0.0, reading_s
        self.gpu_processes: list[str] = []
        self.lists_of_the_gpu = 0
        self.found: list[RoundConditions] = []
        self.monitor = Monitor(
            self.read, self.list_gpu, self.found.append, now=lambda: self.now_s, session=2
        )

    def read(self) -> CpuTimes:
        self.now_s += self.reading_s
        return CpuTimes(self.now_s, 2, self.busy_s, 0.0)

    def list_gpu(self) -> list[str]:
        self.lists_of_the_gpu += 1
        return self.gpu_processes

    def work(self, seconds: float, busy_s: float = 0.0) -> None:
        self.now_s += seconds
        self.busy_s += busy_s

    def rounds(self, number: int, seconds: float) -> None:
        self.monitor.start()
        for i in range(number):
            self.work(seconds)
            self.monitor.after_round(i)
        self.monitor.finish()

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(one.first_round, one.last_round) for one in self.found]


def test_each_long_round_has_a_sample_of_its_own():
    machine = Machine()
    machine.monitor.start()
    machine.work(1.0, busy_s=1.5)
    machine.monitor.after_round(0)
    machine.work(1.0)
    machine.monitor.after_round(1)
    machine.monitor.finish()
    assert machine.places == [(0, 0), (1, 1)]
    assert [one.cpu.busy_s for one in machine.found] == [1.5, 0.0]
    assert {one.session for one in machine.found} == {2}


def test_short_rounds_share_a_sample_and_none_is_left_out():
    machine = Machine()
    machine.rounds(7, seconds=0.1)
    assert machine.places == [(0, 2), (3, 5), (6, 6)]


def test_sampling_takes_a_hundredth_of_the_time_at_most():
    machine = Machine(reading_s=0.02)
    machine.rounds(100, seconds=0.1)
    assert len(machine.found) * machine.reading_s <= 0.01 * (machine.now_s - 100.0) + 0.02


def test_the_gpu_is_asked_every_other_second_only():
    machine = Machine()
    machine.gpu_processes = ["python (process 7)"]
    machine.rounds(20, seconds=0.5)
    assert machine.lists_of_the_gpu == pytest.approx(10 / 2, abs=1)
    assert all(one.gpu_processes == ("python (process 7)",) for one in machine.found)


def test_without_a_finished_round_nothing_is_recorded():
    machine = Machine()
    machine.monitor.start()
    machine.monitor.finish()
    assert machine.found == []


def test_a_system_without_cpu_times_has_none_in_its_samples():
    found: list[RoundConditions] = []
    monitor = Monitor(lambda: None, tuple, found.append)
    monitor.start()
    monitor.after_round(0)
    monitor.finish()
    assert found == [RoundConditions(0, 0)]


# --- reading --------------------------------------------------------------------------------------


def write_proc(root: Path, cores: dict[int, str], processes: dict[int, tuple[int, str]]) -> Path:
    """A /proc: the columns of each core, and each process's parent and CPU times, in ticks."""
    proc = root / "proc"
    proc.mkdir(exist_ok=True)
    lines = [f"cpu{core} {columns}" for core, columns in cores.items()]
    (proc / "stat").write_text("\n".join(["cpu 9 9 9 9 9 9 9 9 0 0", *lines, "intr 5"]))
    for number, (parent, times) in processes.items():
        (proc / str(number)).mkdir(exist_ok=True)
        fields = f"S {parent} 1 1 0 -1 0 0 0 0 0 {times} 20 0 1 0"
        (proc / str(number) / "stat").write_text(f"{number} (a) b) {fields}")
    return root


def test_only_usable_cores_count_and_idle_time_does_not(tmp_path):
    # user nice system idle iowait irq softirq steal guest guest_nice
    cores = {0: "100 200 300 4000 5000 6 7 8 90 90", 1: "0 0 0 1 1 0 0 0 0 0", 2: "7 0 0 0 0 0 0 0"}
    root = write_proc(tmp_path, cores, {os.getpid(): (1, "0 0 0 0")})
    found = read_cpu_times((0, 1), root)
    assert (found.cores, found.busy_s) == (2, (100 + 200 + 300 + 6 + 7 + 8) / TICKS_PER_S)


def test_our_own_time_is_that_of_all_our_descendants(tmp_path):
    processes = {
        os.getpid(): (1, "1 2 3 4"),  # with that of children that have ended
        10**6: (os.getpid(), "10 0 0 0"),
        10**6 + 1: (10**6, "100 0 0 0"),
        10**6 + 2: (1, "1000 0 0 0"),  # of others
    }
    root = write_proc(tmp_path, {0: "5 0 0 0 0 0 0 0"}, processes)
    assert read_cpu_times((0,), root).own_s == 120 / TICKS_PER_S


@pytest.mark.parametrize("cores", [{}, {0: "0 0 0 0 0 0 0 0"}, {0: "1 2 3"}])
def test_a_system_without_figures_has_no_cpu_times(tmp_path, cores):
    root = write_proc(tmp_path, cores, {})
    found = read_cpu_times((0,), root)
    assert found is None


def test_a_system_without_proc_has_no_cpu_times(tmp_path):
    assert read_cpu_times((0,), tmp_path) is None


linux = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux has /proc")
SPINNER = [sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass"]
TOLERANCE_S = 0.4  # the kernel sees at each tick only what a core does


def use_while(command: Sequence[str]) -> CpuUse:
    """Use of all cores until a command has ended, and all that have its output."""
    before = read_cpu_times(usable_cores())
    subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return before.use_until(read_cpu_times(usable_cores()))


@linux
def test_a_process_of_others_that_spins_is_noticed():
    found = use_while(["sh", "-c", '"$@" &', "sh", *SPINNER])  # the shell leaves it to the system
    assert found.others_s >= 1 - TOLERANCE_S
    assert found.own_s < 1 - TOLERANCE_S


@linux
def test_a_process_of_ours_that_spins_is_not_of_others():
    found = use_while(SPINNER)
    assert found.own_s >= 0.95
    assert found.others_s == max(0.0, found.busy_s - found.own_s)


@linux
@pytest.mark.parametrize("launcher", ["inline", pytest.param("process", marks=pytest.mark.slow)])
def test_every_round_of_a_comparison_has_a_sample(launcher, cnn, images, tmp_path):
    compared = pb.compare(
        cnn, images, backends=["half"], launcher=launcher, replicas=1, budget_s=0.3, evidence=False,
        passes=False, journal=tmp_path / "journal",
    )  # fmt: skip
    for row in compared:
        sampled = {
            (one.session, i)
            for one in compared.data.conditions
            if one.row in (None, row.backend)
            for i in range(one.first_round, one.last_round + 1)
        }
        assert sampled >= {block.round_key for block in row.measurement.blocks}
    assert all(one.cpu.own_s > 0 for one in compared.data.conditions)
    assert pb.load(tmp_path / "journal").data.conditions == compared.data.conditions
