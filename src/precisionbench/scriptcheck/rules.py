"""The gates: what makes a script's number wrong, each a small pure function.

A new gate is a function, its entry in `RULES`, and a section in `docs/checking-a-script.md`.
Those that make a number something else than it says come first.
"""

from __future__ import annotations

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Calls, Model
from precisionbench.scriptcheck.rule import Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.timed_regions import Region, by_place
from precisionbench.scriptcheck.violations import Location, Violation
from precisionbench.scriptcheck.warm_up_rule import no_warm_up

_HALF = {"float16", "bfloat16"}
_FEW_CALLS = 5
_SHORT_S = 0.01
_READ_NOT_RUN = "read in the script's text, not run"


def breaches(scene: RuleContext) -> tuple[Violation, ...]:
    """All that a script breaks, in the order of the gates.

    Args:
        scene: what was observed and read.
    """
    return tuple(filter(None, (gate.breach(scene) for gate in RULES)))


def leaked_patches(scene: RuleContext) -> RuleMatch | None:
    """A model ran with patches of torch that an earlier model had brought."""
    models = scene.seen.models
    victims = [
        (number, model)
        for number, model in enumerate(models)
        if model.patched_for not in (None, number) and not model.by_design
    ]
    if not victims:
        return _patches_in_the_text(scene)
    half = {c.model: c for c in scene.all_calls if _turns_half(c, scene.model(c))}
    proved = [n for n, m in victims if n in half or models[m.patched_for or 0].by_design]
    sights = [_patched(scene, number, half.get(number)) for number, _ in victims]
    return RuleMatch(
        (
            Number("models that ran so", len(victims), "count"),
            Number("functions of torch patched", max(m.patches for _, m in victims), "count"),
            Number(
                "float32 models that gave half outputs",
                sum(number in half for number, _ in victims),
                "count",
            ),
        ),
        tuple(dict.fromkeys(sights)),
        "" if proved else "the patches may be meant for these models, too",
    )


def _turns_half(calls: Calls, model: Model) -> bool:
    return model.is_float32 and not calls.autocast and bool(_HALF & set(calls.outputs))


def _patched(scene: RuleContext, number: int, half: Calls | None) -> Location:
    model = scene.seen.models[number]
    source = scene.seen.models[model.patched_for or 0]
    by = "Apex O1 for " if source.by_design else ""
    effect = f"; its parameters are float32 and its output {half.outputs[0]}" if half else ""
    return Location(
        model.place,
        f"{model.kind} (model {number + 1}) ran with {_functions(model.patches)} of torch patched "
        f"since {by}{source.kind} (model {(model.patched_for or 0) + 1}, {source.place}), e.g. "
        f"{model.patched[0]}{effect}",
    )


def _functions(count: int) -> str:
    return f"{count} function{'s' * (count != 1)}"


def _patches_in_the_text(scene: RuleContext) -> RuleMatch | None:
    patches = scene.text.patches
    if not patches or scene.seen.ending.is_whole:
        return None
    sights = tuple(Location(patch.place, patch.says) for patch in patches)
    return RuleMatch((Number("such lines", len(patches), "count"),), sights, _READ_NOT_RUN)


def missing_synchronize(scene: RuleContext) -> RuleMatch | None:
    """The clock was read while the device still worked on what was timed."""
    broken = [region for region in scene.regions if region.pending]
    if not broken:
        return _unsynchronized_in_the_text(scene)
    known = [region for region in broken if region.device_s]
    numbers = [Number("timings read too early", len(broken), "count")]
    if known:
        worst = min(known, key=lambda r: r.read_s / (r.device_s or 1))
        numbers += [
            Number("read", worst.read_s, "s"),
            Number("really", worst.device_s or 0, "s"),
            Number("of the true time", worst.read_s / (worst.device_s or 1), "share"),
        ]
    return RuleMatch(tuple(numbers), tuple(_too_early(group) for group in by_place(broken)))


def _too_early(group: list[Region]) -> Location:
    known = [region for region in group if region.device_s]
    off = ""
    if known:
        read_s, device_s = (sum(getattr(r, n) for r in known) for n in ("read_s", "device_s"))
        off = f": {read_s:.4g} s read, {device_s:.4g} s needed ({_percent(read_s, device_s)})"
    return Location(
        group[0].end,
        f"{_times(group)}, the clock started at line {group[0].start.line} was read with work "
        f"pending{off}",
    )


def _percent(read_s: float, device_s: float) -> str:
    share = abs(1 - read_s / device_s)
    return f"{share:.1%} too {'little' if read_s < device_s else 'much'}"


def _times(group: list[Region]) -> str:
    return "once" if len(group) == 1 else f"{len(group)} times"


def _unsynchronized_in_the_text(scene: RuleContext) -> RuleMatch | None:
    found = scene.text.unsynchronized
    if scene.saw_a_gpu or not scene.text.uses_cuda or not found:
        return None
    sights = tuple(
        Location(
            one.end,
            f"the clock started at line {one.start.line} is read after CUDA work without "
            "torch.cuda.synchronize()",
        )
        for one in found
    )
    return RuleMatch((Number("timed regions", len(found), "count"),), sights, _READ_NOT_RUN)


def tf32_baseline(scene: RuleContext) -> RuleMatch | None:
    """A float32 model was timed whose float32 operations run in TF32."""
    hit = [(r, m) for r, c, m in scene.timed if m.tf32 and _is_plain_float32(c, m)]
    sights = [Location(r.end, f"{m.kind}: {' and '.join(m.tf32)} ran in TF32") for r, m in hit]
    if not hit:
        return None
    asked = all(model.tf32_asked for _, model in hit)
    return RuleMatch(
        (Number("timings of float32 models", len(hit), "count"),),
        tuple(dict.fromkeys(sights)),
        "the script allows it; call the row TF32" if asked else "",
    )


def _is_plain_float32(calls: Calls, model: Model) -> bool:
    return (
        model.is_float32
        and model.patched_for is None
        and not calls.autocast
        and not _HALF & {*calls.inputs, *calls.outputs}
    )


def half_into_float32(scene: RuleContext) -> RuleMatch | None:
    """A model with float32 parameters was given half inputs, and something cast them."""
    hit = [
        (calls, model)
        for calls in scene.all_calls
        if (model := scene.model(calls)).is_float32
        and not model.by_design
        and model.patched_for != calls.model  # what a patch is for may have half inputs
        and not calls.autocast
        and _HALF & set(calls.inputs)
    ]
    if not hit:
        return None
    sights = [
        Location(c.place, f"{m.kind} has float32 parameters and was given {', '.join(c.inputs)}")
        for c, m in hit
    ]
    calls = sum(calls.count for calls, _ in hit)
    patched = all(model.patched_for is not None for _, model in hit)
    return RuleMatch(
        (Number("calls", calls, "count"),),
        tuple(dict.fromkeys(sights)),
        "they ran with patches of torch; look again once they do not" if patched else "",
    )


def train_mode(scene: RuleContext) -> RuleMatch | None:
    """A model was timed in training mode, and has layers that compute otherwise there."""
    hit = [
        (region, calls, model)
        for region, calls, model in scene.timed
        if calls.training and model.mode_layers and not region.trains
    ]
    if not hit:
        return None
    sights = [
        Location(
            r.end, f"{m.kind} was in training mode; {m.mode_layers} of its layers depend on it"
        )
        for r, _, m in hit
    ]
    calls = sum(calls.count for _, calls, _ in hit)
    return RuleMatch((Number("calls", calls, "count"),), tuple(dict.fromkeys(sights)))


def gradients_on(scene: RuleContext) -> RuleMatch | None:
    """A model was timed while torch noted down what gradients need, and none were computed."""
    hit = [(r, c, m) for r, c, m in scene.timed if c.gradients and not r.trains]
    if not hit:
        return None
    sights = [
        Location(r.end, f"{m.kind} gave an output that requires gradients") for r, _, m in hit
    ]
    calls = sum(calls.count for _, calls, _ in hit)
    return RuleMatch((Number("calls", calls, "count"),), tuple(dict.fromkeys(sights)))


def host_copies(scene: RuleContext) -> RuleMatch | None:
    """Something went between host and device, or waited for it, about once for each call.

    One that fetches once at the end is how some scripts synchronize.
    """
    counts: dict[tuple[str, str], int] = {}
    sights: dict[Location, None] = {}
    for region in scene.regions:
        for wait in region.waits:
            least = region.count / 2
            if not wait.inside and not wait.uploads:
                least = max(least, 2)
            if wait.count >= least:
                where = "inside the model" if wait.inside else "in the timed region"
                sights[Location(wait.place, f"{wait.kind} {where}")] = None
                key = wait.kind, str(wait.place)
                counts[key] = counts.get(key, 0) + wait.count
    if not sights:
        return None
    numbers = tuple(Number(f"{kind} at {place}", n, "count") for (kind, place), n in counts.items())
    return RuleMatch(numbers, tuple(sights))


def overflow(scene: RuleContext) -> RuleMatch | None:
    """A model's first output was not finite."""
    hit = [model for model in scene.seen.models if model.non_finite]
    if not hit:
        return None
    worst = max(model.non_finite or 0.0 for model in hit)
    sights = [Location(m.place, f"{m.kind} gave {m.non_finite:.0%} infinite or NaN") for m in hit]
    return RuleMatch((Number("infinite or NaN", worst, "share"),), tuple(sights))


def constant_inputs(scene: RuleContext) -> RuleMatch | None:
    """A timed model was given the same number throughout."""
    hit = {c.model: m for _, c, m in scene.timed if m.constant_input is not None}
    if not hit:
        return None
    sights = [
        Location(m.place, f"all inputs of {m.kind} are {m.constant_input:g}") for m in hit.values()
    ]
    value = next(iter(hit.values())).constant_input or 0.0
    return RuleMatch((Number("all elements", value, ""),), tuple(sights))


def too_short(scene: RuleContext) -> RuleMatch | None:
    """So little was timed that the figure says nothing of its own spread."""
    hit = []
    for group in by_place(scene.regions):
        calls, read_s = sum(r.count for r in group), sum(r.read_s for r in group)
        if calls < _FEW_CALLS or read_s < _SHORT_S:
            hit.append((group[0].end, calls, read_s))
    if not hit:
        return None
    _, calls, read_s = min(hit, key=lambda one: one[2])
    return RuleMatch(
        (Number("calls", calls, "count"), Number("timed in all", read_s, "s")),
        tuple(Location(place, f"{n} timed calls in {s:.3g} s") for place, n, s in hit),
        "it may be steady all the same",
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "leaked-patches",
        "C15",
        "torch was patched for an earlier model, and a later one ran with the patches",
        "run each of them in a process of its own; nothing undoes Apex O1",
        leaked_patches,
    ),
    Rule(
        "missing-synchronize",
        "C1",
        "the clock was read before the device had done the work",
        "call torch.cuda.synchronize() before each reading of the clock, or time with CUDA events",
        missing_synchronize,
    ),
    Rule(
        "tf32-baseline",
        "C13",
        "a float32 model was timed in TF32",
        "set torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32 to False, "
        "or call the row TF32",
        tf32_baseline,
    ),
    Rule(
        "half-into-float32",
        "C19",
        "a float32 model was given half inputs",
        "give each model inputs of its own dtype",
        half_into_float32,
    ),
    Rule(
        "no-warm-up",
        "C6",
        "the first call was timed",
        "call the model a few times with the same shapes before the clock starts",
        no_warm_up,
    ),
    Rule(
        "train-mode",
        "C21",
        "the model was timed in training mode",
        "call model.eval() first",
        train_mode,
    ),
    Rule(
        "gradients-on",
        "C21",
        "gradients were prepared for and never computed",
        "time under torch.inference_mode() or torch.no_grad()",
        gradients_on,
    ),
    Rule(
        "host-copies",
        "C16",
        "tensors went between host and device in the timed region",
        "move inputs to the device before the clock starts, and fetch results after it has stopped",
        host_copies,
    ),
    Rule(
        "non-finite-outputs",
        "C23",
        "outputs are infinite or NaN",
        "use trained weights, or scale random ones so that half precision can hold the activations",
        overflow,
    ),
    Rule(
        "constant-inputs",
        "C22",
        "the inputs are all the same number",
        "use random numbers: constants take less power, and a GPU may then clock higher",
        constant_inputs,
    ),
    Rule(
        "too-short",
        "",
        "very little was timed",
        "time more calls, and repeat the timing to see how much it varies",
        too_short,
    ),
)
