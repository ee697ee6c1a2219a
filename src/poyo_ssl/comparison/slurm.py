"""A run as jobs of a SLURM cluster: scripts to read, change and submit."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from poyo_ssl.comparison.run_plan import RunPlan
from poyo_ssl.whole_files import partial_file, publish

FOLDER, SUBMIT = "slurm", "submit.sh"
"""Where the scripts lie in a run's directory, and the one that submits the others."""

_JOB = """\
#!/bin/bash
# {about}
#SBATCH --job-name=poyo-ssl-{name}
#SBATCH --cpus-per-task={cpus}{array}
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
cd {folder} || exit 1
srun --cpus-per-task="${{SLURM_CPUS_PER_TASK:-{cpus}}}" {command} \\
    --jobs "${{SLURM_CPUS_PER_TASK:-{cpus}}}"{options}
status=$?
# told to end, it has saved what it did, and goes on when it is started again
if [ "$status" -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
"""

_SUBMIT = """\
#!/bin/bash
# Submits the run. Options for all jobs, such as --partition=gpu, go behind: bash submit.sh OPTIONS
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
{submissions}
"""
_FIRST = '{name}=$(sbatch --parsable "$@" {name}.sh)'
_NEXT = '{name}=$(sbatch --parsable --dependency="afterany:${{{before}%%;*}}" "$@" {name}.sh)'
_LAST = 'echo "Submitted {titles}. The report comes with job ${{report%%;*}}."'


def write_slurm_scripts(
    directory: Path, plans: Sequence[RunPlan], command: Sequence[str], *, num_parts: int
) -> Path:
    """Writes what does runs on a cluster: an array that pretrains, one that fits, and a report.

    A job begins when those before it have come to an end, however they did: it does what they
    left, too.

    Args:
        directory: The run's or the sweep's; all nodes must see it.
        plans: What is to be done; of a sweep, that of every run.
        command: Words of the ``poyo-ssl run`` command that does it alone.
        num_parts: Jobs of an array at most.

    Returns:
        The script that submits the others.

    Raises:
        ValueError: If ``num_parts`` is not positive.
    """
    if num_parts < 1:
        raise ValueError(f"parts must be at least 1, got {num_parts}.")
    num_encoders = [len({planned.name for planned in plan.pretrainings}) for plan in plans]
    arrays = {
        "pretrain": min(num_parts, max(num_encoders)),
        "decode": min(num_parts, max(len(plan.fits) for plan in plans)),
    }
    about = {
        "pretrain": ("Pretrains the encoders.", " --pretrain_only"),
        "decode": ("Fits the decoders, and encoders that are missing.", ""),
        "report": ("Fits what is left; writes tables and report.", ""),
    }
    names = [name for name in about if arrays.get(name, 1)]
    for name in names:
        count = arrays.get(name)
        text, options = about[name]
        part = f' --part "$SLURM_ARRAY_TASK_ID/{count}"' if count else ""
        script = _JOB.format(
            about=text,
            name=name,
            cpus=plans[0].config["jobs"] or 1,
            array=f"\n#SBATCH --array=1-{count}" if count else "",
            folder=shlex.quote(str(Path.cwd())),
            command=shlex.join([sys.executable, "-m", "poyo_ssl", *command]),
            options=part + options,
        )
        _write(directory / FOLDER / f"{name}.sh", script)
    submissions = [_FIRST.format(name=names[0])]
    for before, name in pairwise(names):
        submissions.append(_NEXT.format(name=name, before=before))
    submissions.append(_LAST.format(titles=", ".join(names)))
    path = directory / FOLDER / SUBMIT
    _write(path, _SUBMIT.format(submissions="\n".join(submissions)))
    return path


def submit(script: Path) -> str:
    """Submits the jobs that :func:`write_slurm_scripts` wrote; gives what SLURM said.

    Raises:
        OSError: If there is no ``sbatch`` on the ``PATH``, or it refuses.
    """
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(
            f"The jobs were not submitted: {done.stderr.strip() or 'sbatch gave no reason'}. Their "
            f"scripts are in '{script.parent}': submit them with 'bash {script}' where sbatch is."
        )
    return done.stdout.strip()


def _write(path: Path, text: str) -> None:
    with partial_file(path) as partial:
        partial.write_text(text)
        publish(partial, path)
