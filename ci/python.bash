# Sourced by ci/setup and ci/lock: finds the Python that the virtual environment is made from.

python_oldest='3.11'

# shellcheck disable=SC2034 # They are for those who source this.
# Sets `python` and `python_version`, or returns 1 when there is no Python that is new enough.
# Debian's own comes first: every user of the machine can run it.
find_python() {
    local candidate found
    for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        # The base executable: the one that was asked may belong to an active virtual environment.
        found=$("$candidate" -I -c '
import sys
if sys.version_info < tuple(map(int, sys.argv[1].split("."))):
    raise SystemExit(1)
print("{}.{}.{}".format(*sys.version_info[:3]), sys._base_executable)
' "$python_oldest" 2>/dev/null) || continue
        python_version=${found%% *}
        python=${found#* }
        return 0
    done
    return 1
}
