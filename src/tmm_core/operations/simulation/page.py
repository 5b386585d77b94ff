"""The page of a simulation: what was found, policy by policy, with charts and the figures they show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tmm_core.operations.charts import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILION,
    Level,
    Line,
    line_chart,
    runs,
    time_step,
)
from tmm_core.operations.page import (
    Block,
    Bullets,
    Cell,
    Column,
    Figure,
    Page,
    Section,
    Table,
    Terms,
    Text,
    Tile,
    Tiles,
)
from tmm_core.operations.simulate import Simulation
from tmm_core.operations.simulation.promises import checks
from tmm_core.operations.simulation.result import PolicyResult, Second
from tmm_core.operations.simulation.scenario import POLICIES
from tmm_core.operations.simulation.summary import (
    FIGURES,
    Row,
    differences,
    finding,
    names_of,
    only,
    value_text,
)
from tmm_core.operations.terminal import duration, number

_BINS, _ROWS = 270, 20
_UNIT = "Units per second"
_STYLES = (
    (VERMILION, "5 2"),
    (PURPLE, "2 3"),
    (GREY, "9 4"),
    (GREEN, "7 2 2 2"),
    (BLUE, ""),
    ("#8A6D00", "1 2"),
)
_GROUPS = (
    ("Is the system protected?", ("outage_s", "highest", "goodput", "answered", "recovery_s")),
    (
        "Who is hit?",
        ("refused_inside", "refused_above", "refused_priority", "priority_lost", "inside_users_lost", "jain"),
    ),
    (
        "How long, and with how much effort?",
        ("wait_median_s", "wait_p99_s", "attempts_per_request", "activations", "active_s"),
    ),
)
_WORDS = (
    ("under pressure", ("seconds in which more new Service Requests come than the operating threshold, or in which "
     "the DSP has a fault; all seconds where there are none")),
    ("inside, above the allocation", ("whether the User's own bucket conformed at that attempt, told by the engine "
     "for every policy alike")),
    ("Users inside", "Users whose new Service Requests never went above their allocation"),
    ("attempt", "a Service Request on its way, for the first time or again"),
    ("outage", "seconds in which the DSP is down, or has more waiting than it can answer before its senders give up"),
    ("fairness (Jain)", ("of spare capacity against the exact weighted max-min share, over the Users that were "
     "limited: 1 if each got its share, 1/n if one got everything; – where a hundredth of the threshold was hardly "
     "ever spare, or fewer than two were limited")),
    ("back to normal", "from the end of the pressure until nothing is refused, fails, waits or is active"),
    ("hold and release later", ("our model of the Alternative Solution: what the Mechanism would throttle is held, and "
     "asks again in the next window of one second; the report does not say more")),
    ("the network's 503", ("our model: while more than a second of work waits at the DSP everybody is refused, until "
     "it is a tenth of a second")),
)  # fmt: skip


def simulation_page(simulations: Sequence[Simulation]) -> Page:
    """Return the page of one simulation, or of two to compare."""
    first = simulations[0].scenario
    alone = len(simulations) == 1
    sections = []
    for simulation in simulations:
        parts = _sections(simulation)
        if alone:
            sections += parts
        else:
            scenario = simulation.scenario
            about = Text(f"{scenario.about} ({scenario.name}, seed {scenario.seed})")
            sections.append(Section(scenario.title, (about,), parts))
    if not alone:
        sections.insert(
            0, Section("Side by side", list(map(Text, only(*simulations))), _compared(*simulations))
        )
    sections.append(Section("How to read it", (Terms(_WORDS), Bullets(_LIMITS))))
    config = first.config
    facts = [
        ("Motive", first.source or "–"),
        ("Simulated", f"{duration(first.seconds)}, seed {first.seed}"),
        ("Thresholds", (f"operating threshold {number(config.operating_threshold)}, system capacity "
         f"{number(config.system_capacity)} units per second")),
        ("Users", f"{len(config.users)}, all invented"),
    ]  # fmt: skip
    return Page(
        title=first.title if alone else f"{first.title} – {simulations[1].scenario.title}",
        lead=first.about if alone else "Two configurations, side by side.",
        facts=facts if alone else (),
        sections=sections,
        foot="Made by tmm simulate: the real engine on a simulated clock. All volumes are invented or derived.",
    )


_LIMITS = (
    "The Mechanism's decisions and Retry-After are those of the real engine; DSP, network and clients are models.",
    "DCC publishes neither the capacity of the DSP nor any peak, and nothing about how it fails.",
    "Service Requests of one step, 10 ms unless the scenario says otherwise, are decided at one instant.",
    "The DSP is one queue: it answers in the order of arrival. Transport and signatures cost nothing.",
)


def _sections(simulation: Simulation) -> list[Section]:
    tiles = []
    for result in simulation.results:
        out = f"out for {duration(result.outage_s)}" if result.outage_s else "stays up"
        note = f"{number(round(result.goodput))} answered per second under pressure"
        tiles.append(Tile(out, POLICIES[result.name], note))
    head: list[Block] = [Text(finding(simulation) + ".", strong=True), Tiles(tiles)]
    sections = [Section("What was found", head, [_group(simulation, *group) for group in _GROUPS])]
    figures = [wait_figure(simulation), *[load_figure(each) for each in simulation.results]]
    sections.append(Section("Load, policy by policy", figures))
    kept = [
        Section(_capital(POLICIES[each.name]), [_promises(each)])
        for each in simulation.results
        if checks(each)
    ]
    if kept:
        sections.append(Section("What is promised, and whether it held", (), kept))
    return sections


def _group(simulation: Simulation, heading: str, keys: Sequence[str]) -> Section:
    rows = [row for row in FIGURES if row.key in keys]
    columns = [Column("Policy", "text", "policy")]
    kinds = {"ratio": "count"}
    columns += [Column(row.label, kinds.get(row.kind, row.kind), row.key) for row in rows]  # type: ignore[arg-type]
    table = [
        (POLICIES[result.name], *[_cell(row, row.of(simulation, result)) for row in rows])
        for result in simulation.results
    ]
    return Section(heading, [Table("By policy", columns, table)])


def _cell(row: Row, value: Cell) -> Cell:
    """Return a figure as the terminal shows it where the page has no kind for it."""
    return value_text(row, value) if row.kind == "ratio" and value is not None else value


def _compared(one: Simulation, two: Simulation) -> list[Section]:
    """Return what differs, policy by policy: narrow tables, that fit a telephone."""
    columns = [Column("Figure", "text", "figure")]
    for place, name in enumerate([*names_of(one, two), "difference"], 1):
        columns.append(Column(name, "count", f"value_{place}"))
    found = []
    for result in one.results:
        other = two.of(result.name)
        if other is None:
            continue
        rows, rest = differences(one, result, two, other)
        blocks: list[Block] = [Table("Figures that differ", columns, rows)] if rows else []
        blocks += map(Text, rest if rows else ["All figures are the same."])
        found.append(Section(_capital(POLICIES[result.name]), blocks))
    return found


def _promises(result: PolicyResult) -> Table:
    columns = (
        Column("Promise", "text", "promise"), Column("Found", "text", "found"), Column("", "text", "holds"),
    )  # fmt: skip
    words = {True: "holds", False: "BROKEN", None: "not put to the test"}
    return Table(
        "Properties P1 to P7",
        columns,
        [(f"{each.name}: {each.promise}", each.found, words[each.holds]) for each in checks(result)],
    )


def load_figure(result: PolicyResult) -> Figure:
    """Return the chart of one policy: what is new, what is sent in all, and what reaches the DSP."""
    rows, config = result.rows, result.scenario.config
    name = POLICIES[result.name]
    edges = _edges(len(rows), _BINS)

    def line(label: str, key: str, colour: str, dash: str, weight: float) -> Line:
        points = [
            ((begin + end) / 2, max(getattr(row, key) for row in rows[begin:end]))
            for begin, end in pairwise(edges)
        ]
        return Line(label, points, colour, dash, weight)

    lines = (
        line("sent, retries included", "offered", VERMILION, "5 2", 1.8),
        line("new", "fresh", GREY, "2 3", 1.8),
        line("reaches the DSP", "admitted", BLUE, "", 2.4),
    )
    levels = (
        Level("operating threshold", config.operating_threshold),
        Level("system capacity", config.system_capacity, "2 3"),
    )
    bands = runs([row.active for row in rows])
    down = f"; the DSP is out for {duration(result.outage_s)}" if result.outage_s else ""
    said = (
        f"{_capital(name)}: {number(round(result.highest))} units reach the DSP in the highest second of "
        f"{number(round(max((row.offered for row in rows), default=0)))} sent{down}"
    )
    table = Table(
        "Highest second of each part",
        (
            Column("From", "duration", "from_s"), Column("New", "rate", "fresh"), Column("Sent", "rate", "offered"),
            Column("Reaches the DSP", "rate", "admitted"), Column("Answered", "rate", "answered"),
            Column("Waiting at the DSP", "duration", "wait_s"),
        ),
        [
            (float(begin), *[max(getattr(row, key) for row in rows[begin:end])
             for key in ("fresh", "offered", "admitted", "answered", "wait_s")])
            for begin, end in pairwise(_edges(len(rows), _ROWS))
        ],
    )  # fmt: skip
    return Figure(
        said,
        lambda width: line_chart(
            said, "Load over time against the operating threshold and the system capacity.", lines,
            _ticks(len(rows)), until=len(rows), unit=_UNIT, levels=levels, bands=bands,
            band_name="Mechanism active", width=width,
        ),
        table,
    )  # fmt: skip


def wait_figure(simulation: Simulation) -> Figure:
    """Return the chart of the work that waits at the DSP, all policies in one."""
    seconds, timeout = simulation.scenario.seconds, simulation.scenario.dsp.timeout_s
    edges = _edges(seconds, _BINS)
    lines = []
    for place, result in enumerate(simulation.results):
        colour, dash = _STYLES[list(POLICIES).index(result.name) % len(_STYLES)]
        points = [
            ((begin + end) / 2, max(_wait(row, timeout) for row in result.rows[begin:end]))
            for begin, end in pairwise(edges)
        ]
        lines.append(Line(POLICIES[result.name], points, colour, dash, 2.6 if place == 0 else 2.0))
    worst = max(simulation.results, key=lambda each: max(row.wait_s for row in each.rows))
    most = max(row.wait_s for row in worst.rows)
    said = f"Up to {duration(most)} of work wait at the DSP, under: {POLICIES[worst.name]}"
    if most < 1:
        said = "Under no policy does as much as a second of work wait at the DSP"
    rows = [
        (float(begin), *[max(row.wait_s for row in each.rows[begin:end]) for each in simulation.results])
        for begin, end in pairwise(_edges(seconds, _ROWS))
    ]
    columns = [Column("From", "duration", "from_s")]
    columns += [Column(_capital(POLICIES[each.name]), "duration", each.name) for each in simulation.results]
    return Figure(
        said,
        lambda width: line_chart(
            said, "Seconds of work waiting at the DSP, over time, by policy.", lines, _ticks(seconds), until=seconds,
            unit="Seconds of work waiting",
            levels=(Level("senders give up at", timeout),) if most > timeout / 4 else (), width=width,
        ),
        Table("Most work waiting in each part", columns, rows),
        "Seconds of work at the full capacity. A DSP that is down counts as the time after which senders give up.",
    )  # fmt: skip


def _wait(row: Second, timeout: float) -> float:
    return max(row.wait_s, timeout) if row.down else row.wait_s


def _edges(n: int, parts: int) -> list[int]:
    width = -(-n // parts)
    return [*range(0, n, width), n]


def _ticks(seconds: int) -> list[tuple[float, str]]:
    step = time_step(seconds, 8)
    if step >= 3600:
        return [(float(at), f"{at // 3600} h") for at in range(0, seconds + 1, step)]
    return [(float(at), f"{at // 60}:{at % 60:02d} min") for at in range(0, seconds + 1, step)]


def _capital(text: str) -> str:
    """Return text with a capital in front; the Mechanism keeps its own."""
    return text[:1].upper() + text[1:]
