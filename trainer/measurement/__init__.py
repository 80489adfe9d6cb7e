"""Measurement: what a candidate's train.py is worth, trusting nothing it says.

    measurer = Measurer(sandbox, environment, snapshot, cache, protocol, work)
    result = measurer.measure(files, grace=20.0, reference=incumbent.reference)
    result.val_bpb or result.findings

**The argument.** The candidate is a program whose author gains from a low number. The number rests on this:

1. *Train.* The candidate runs in a fresh sandbox that holds the pinned snapshot with only its mutable files replaced,
   the training shards and the tokenizer, all read-only, and a `prepare` module that freezes the model on the first
   `evaluate_bpb` (`inside_prepare.py`). The parent's clock runs from the start of the process to the word that the
   graph is ready. The thread that stamps the word kills the whole tree before it looks at anything else; a tree of
   which something could run 50 ms later is a failed run. Only then is the graph read, as bytes of bounded size that
   did not change after the word. So log, loop, clock and arguments of `evaluate_bpb` do not matter, nothing is left
   to change the graph afterwards, and all that came out is one pure function of (B, T) tokens. A candidate that
   writes the graph and sends the word without our shim gains nothing: the graph is what is judged.
2. *Claim.* A fresh sandbox runs our worker over the graph and returns one cross-entropy per validation position. The
   graph is untrusted native code (MLX graphs are not memory-safe), so this worker may be the candidate's by now, and
   it has seen the targets: its losses are a claim. The parent checks form, finiteness and sign and sums in
   float64 with its own byte counts. From here on the claim cannot change.
3. *Prove.* Only now does the parent draw secret positions, and a second fresh sandbox sees, for each, a row whose
   tokens after the cut are random, and returns the logits at the cut. Row by row at most one cut, so that no row shows
   the target of another. The parent normalises these logits in float64 and looks up a target which that process never
   saw. A loss that needs the future cannot be given here, and a graph that notices the random tokens and behaves
   cannot then match a claim that did not. `scoring` has the draw and its bounds; a report gives the bound it reached.
4. *On fresh text too.* The validation shard is public, and a graph may hold its answers, causally. So 2 and 3 are
   done on rows the caller brings as well, in the same two processes; they are probed too, else a graph could be honest
   on known text only.

The parent never imports a graph, unpickles anything or runs the harness: validation rows and byte counts come from a
sandbox without the candidate (`facts`), checked, hashed and kept. That the formula is the harness's own is tested there
by giving it known losses; a harness that fails is not `supports`-ed, and its projects are self-reported.

**What it does not show.** Gains within tolerance and drift (`MeasurementPolicy`), a fraction of run-to-run noise.
Memorised text that the fresh rows share. Collusion through the hardware: timing or device memory that survives a
process. Repeated documents in a small validation shard: a compromised probe worker could find one row's target in
another.

**Findings** are typed (`Failure`); HOST is this machine's. Whether a worker's CRASH is the graph's doing is for the
caller to tell, who knows whether the incumbent's graph runs here.
"""

from trainer.measurement.claims import judge
from trainer.measurement.facts import HarnessFacts, supports, training_view
from trainer.measurement.measurer import Measurer
from trainer.measurement.outcomes import MeasurementFailed
from trainer.measurement.scoring import bits_per_byte
from trainer.measurement.values import (
    Failure,
    Measurement,
    MeasurementPolicy,
    Phase,
    Probe,
    ProbeReport,
    Progress,
    Reference,
    RunFinding,
    Score,
    ScoringText,
)

__all__ = [
    "Failure",
    "HarnessFacts",
    "Measurement",
    "MeasurementFailed",
    "MeasurementPolicy",
    "Measurer",
    "Phase",
    "Probe",
    "ProbeReport",
    "Progress",
    "Reference",
    "RunFinding",
    "Score",
    "ScoringText",
    "bits_per_byte",
    "judge",
    "supports",
    "training_view",
]
