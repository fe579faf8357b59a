"""What every test run needs: the table of clients is compared where all results come together."""

pytest_plugins = ["tests.clients.compatibility"]
