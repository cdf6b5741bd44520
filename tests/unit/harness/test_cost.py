"""What the installed plugin costs a suite that does not use it: nothing that is seen, and no heavy import."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

HEAVY = ("numpy", "scipy", "matplotlib", "jinja2", "tabulate", "jsonschema", "syrupy", "torch", "transformers")
# The line of equal signs is as long as the time leaves room for.
ELAPSED = re.compile(r"in \d+\.\d+s|=")
SUITE = """
    import pytest

    def test_passes():
        pass

    def test_skips():
        pytest.skip("not here")

    @pytest.mark.parametrize("number", range(3))
    def test_numbers(number):
        assert number < 2
"""


def test_importing_the_plugin_loads_nothing_heavy() -> None:
    script = f"import sys, harness.plugin; print([name for name in {HEAVY} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_a_run_without_criteria_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    # Only the plugin itself is loaded: other installed plugins import what they like.
    pytester.makepyfile(
        f"""
        import sys

        def test_modules():
            assert not [name for name in {HEAVY} if name in sys.modules]
        """
    )
    arguments = ("-c", "import sys, pytest; sys.exit(pytest.main(['-p', 'harness.plugin', '-q']))")
    pytester._monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = pytester.run(sys.executable, *arguments)
    assert result.ret == 0
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("arguments", [(), ("-q",), ("-v",), ("-n", "1")])
def test_a_suite_without_criteria_looks_the_same(pytester: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    pytester.makepyfile(test_suite=SUITE)
    pytester._monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a second and more of imports each
    shown, written = [], []
    for plugin in ((), ("-p", "harness.plugin")):
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "xdist", *arguments, *plugin)
        assert result.ret == 1
        lines = [*result.stdout.lines, *result.stderr.lines]
        # pytest itself lists the distributions whose plugins it loaded.
        shown.append([ELAPSED.sub("", line) for line in lines if not line.startswith("plugins: ")])
        written.append({path.name for path in pytester.path.iterdir() if not path.name.startswith("runpytest-")})
    assert shown[0] == shown[1]
    assert written[0] == written[1]
