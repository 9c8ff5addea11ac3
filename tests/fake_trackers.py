"""Stand-ins of wandb, mlflow and trackio: what transformers' callbacks and recalign call of them, written down."""

from pathlib import Path

SOURCES = {
    "wandb/__init__.py": """
import os
calls, run, config = [], None, {}

class Config(dict):
    def update(self, values, allow_val_change=False):
        super().update(values)

config = Config()

class Run:
    id, url, name = "1", "", ""

    def __init__(self):
        self.summary = {}

    def _label(self, **_):
        pass

def init(**named):
    global run
    run = Run()
    calls.append(("init", {**named, **{k: v for k, v in os.environ.items() if k.startswith("WANDB_")}}))

def log(values):
    calls.append(("log", values))

def finish():
    global run
    run = None
    calls.append(("finish", {}))

def define_metric(*_, **__):
    pass

class Table:
    def __init__(self, columns, data):
        self.columns, self.data = columns, data
""",
    "wandb/sdk/lib/config_util.py": "class ConfigError(Exception):\n    pass\n",
    "mlflow/__init__.py": """
import os
from mlflow import utils
__version__ = "3.0"
calls, _run = [], None

class Run:
    class info:
        run_id = "1"

def active_run():
    return _run

def is_tracking_uri_set():
    return True

def get_tracking_uri():
    return ""

def set_experiment(name):
    calls.append(("experiment", name))

def start_run(run_name=None, nested=False):
    global _run
    _run = Run()
    calls.append(("start", run_name))

def end_run():
    global _run
    _run = None
    calls.append(("end", None))

def set_tags(tags):
    calls.append(("tags", tags))

def log_params(*_, **__):
    pass

def log_metrics(metrics, step, synchronous=True):
    calls.append(("metrics", (step, metrics)))

def log_table(data, artifact_file):
    calls.append(("table", data))
""",
    "mlflow/utils/__init__.py": "from mlflow.utils import validation\n",
    "mlflow/utils/validation.py": "MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH = 250, 100\n",
    "trackio/__init__.py": """
from trackio import context_vars
__version__ = "0.43"
calls = []

class Config(dict):
    def update(self, values, allow_val_change=False):
        super().update(values)

config = Config()

def init(**named):
    context_vars.current_run.value = named["name"]
    calls.append(("init", named))

def log(values):
    calls.append(("log", values))

def finish():
    context_vars.current_run.value = None
    calls.append(("finish", {}))

class Table:
    def __init__(self, columns, data):
        raise OSError("no way to the server")
""",
    "trackio/context_vars.py": """
class Variable:
    value = None

    def get(self):
        return self.value

current_run, current_space_id = Variable(), Variable()
""",
}


def write_trackers(folder: Path) -> None:
    """Write the packages into a folder, which the caller puts on sys.path."""
    for name, source in SOURCES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, "utf-8")
    for package in ("wandb/sdk", "wandb/sdk/lib"):
        (folder / package / "__init__.py").write_text("", "utf-8")
