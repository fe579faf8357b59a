# Short names for the scripts in tools/; nothing is defined only here.
.PHONY: serve test lock bench

serve:
	sh tools/quickstart.sh

test:
	sh tools/test.sh

lock:
	sh tools/lock.sh

bench:
	.venv/bin/python -m benchmarks
