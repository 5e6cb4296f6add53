"""One `tessera serve` over a repository of the fixtures, for the clients that our users already have.

The binary is TESSERA_BIN, or else the workspace's debug build. It is started on a free port, which it prints:
`tessera: http on http://127.0.0.1:PORT`.
"""
import contextlib
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.http

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
MINILM = FIXTURES / "minilm_l6_v2"
BOUND = re.compile(r"tessera: http on http://(\S+:\d+)")
START_WITHIN_S = 60
# Debug builds on two busy cores are slow to load a repository, and a test that waits too little tells nothing.
READY_WITHIN_S = 120


class Case:
    """A fixture: a model and PyTorch's answers, as sets of (inputs, outputs) by name."""

    def __init__(self, name):
        self.name = name
        self.model = FIXTURES / f"{name}.onnx"
        arrays = dict(np.load(FIXTURES / f"{name}.npz"))
        self.sets = [
            ({k.removeprefix(f"{p}in."): v for k, v in arrays.items() if k.startswith(f"{p}in.")},
             {k.removeprefix(f"{p}out."): v for k, v in arrays.items() if k.startswith(f"{p}out.")})
            for p in ("", "alt.")
            if any(k.startswith(f"{p}in.") for k in arrays)
        ]


CASES = {path.stem: Case(path.stem) for path in sorted(FIXTURES.glob("*.onnx"))}


def relative_l2(answer, expected):
    """|answer - expected| / |expected|, in double precision."""
    answer, expected = answer.astype(np.float64), expected.astype(np.float64)
    return np.linalg.norm(answer - expected) / np.linalg.norm(expected)


def infer_inputs(module, arrays, binary=True):
    """`arrays` as the client's own inputs; `module` is tritonclient.http or tritonclient.http.aio."""
    inputs = []
    for name, array in arrays.items():
        datatype = {np.dtype(np.float32): "FP32", np.dtype(np.int32): "INT32", np.dtype(np.int64): "INT64"}[array.dtype]
        tensor = module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(np.ascontiguousarray(array), binary_data=binary)
        inputs.append(tensor)
    return inputs


class Server:
    """A running `tessera serve`, with its output kept for the message of a test that fails."""

    def __init__(self, repository, *flags):
        binary = pathlib.Path(os.environ.get("TESSERA_BIN", ROOT / "target" / "debug" / "tessera")).resolve()
        assert binary.is_file(), f"no binary at {binary}: build it with `cargo build --bin tessera`, or set TESSERA_BIN"
        ports = [word for port in ("http", "metrics") for word in (f"--{port}-port", "0")]
        command = [str(binary), "serve", "--model-repository", str(repository), "--device", "cpu", *ports, *flags]
        self.lines = []
        self._bound = queue.Queue()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.url = self._bound.get(timeout=START_WITHIN_S)
        except queue.Empty:
            self.process.kill()
            raise AssertionError(f"no bound address within {START_WITHIN_S} s:\n{self.output()}") from None

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if found := BOUND.search(line):
                self._bound.put(found.group(1))

    def output(self):
        return "".join(self.lines[-200:])

    def get(self, path):
        """Status and body of a plain GET."""
        try:
            with urllib.request.urlopen(f"http://{self.url}{path}", timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def wait_until(self, holds, what, seconds=READY_WITHIN_S):
        until = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.output()}"
            assert time.monotonic() < until, f"{what} took more than {seconds} s:\n{self.output()}"
            time.sleep(0.05)

    def wait_ready(self):
        self.wait_until(lambda: self.get("/v2/health/ready")[0] == 200, "getting ready")

    def is_ready(self, tenant):
        return self.get(f"/v2/models/{tenant}/ready")[0] == 200

    def stop(self):
        """SIGTERM drains and ends with 0; whatever a test left behind, the process does not outlive it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError(f"no end within 60 s of SIGTERM:\n{self.output()}") from None
        assert self.process.returncode == 0, f"the server ended with {self.process.returncode}:\n{self.output()}"


@contextlib.contextmanager
def serving(repository, *flags):
    server = Server(repository, *flags)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def place(source, target):
    """Copy a model to where the repository wants it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Every fixture as a tenant of its name, in all three layouts; `two-versions` has mlp-0 as 1 and mlp-1 as 2."""
    repository = tmp_path_factory.mktemp("repository")
    for at, case in enumerate(CASES.values()):
        layout = (f"{case.name}.onnx", f"{case.name}/model.onnx", f"{case.name}/1/model.onnx")[at % 3]
        place(case.model, repository / layout)
    place(CASES["mlp-0"].model, repository / "two-versions" / "1" / "model.onnx")
    place(CASES["mlp-1"].model, repository / "two-versions" / "2" / "model.onnx")
    if (MINILM / "model.safetensors").is_file():
        # As caches lay models out: the folder is real, its files are links.
        folder = repository / "minilm"
        folder.mkdir()
        for file in ("model.onnx", "model.safetensors"):
            (folder / file).symlink_to(MINILM / file)
    with serving(repository) as server:
        yield server


@pytest.fixture
def client(server):
    with tritonclient.http.InferenceServerClient(server.url, network_timeout=120) as client:
        yield client
