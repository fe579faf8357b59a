"""The text of the workflow that keeps the index of a package repository up to date.

Values that differ between repositories are only in its `env`. Commands read them from environment
variables, so a value can never be executed as a part of a command.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from private_pypi.errors import ConfigurationError

WORKFLOW_PATH = ".github/workflows/update-index.yml"

MARK = "# Made by `private_pypi github.init_pkg_repo`, which renews it while this line is here.\n"
"""The first line of a workflow that may be replaced by a newer one.

It must never change, because it is in the workflows of existing repositories.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFacts:
    """What is written into the workflow. It learns the owner and the repository from GitHub."""

    name: str  # of the repository in the server's configuration
    requirement: str  # what pip is told to install this project
    index_filename: str
    branch: str | None  # of the index; None: the default branch
    pages: bool


def workflow_text(facts: WorkflowFacts) -> str:
    """The workflow; raises `ConfigurationError` if a value cannot be written into it."""
    variables = {
        "NAME": facts.name,
        "REQUIREMENT": facts.requirement,
        "INDEX_FILENAME": facts.index_filename,
    }
    if facts.branch is not None:
        variables["BRANCH"] = facts.branch
    lines = "".join(f"  {key}: {_quoted(key, value)}\n" for key, value in variables.items())
    return MARK + _HEAD + f"\nenv:\n{lines}" + _INDEX + (_PAGES if facts.pages else "")


def _quoted(key: str, value: str) -> str:
    """A double-quoted string of YAML. JSON has the same syntax, except for surrogates."""
    if "${{" in value or not value.isprintable():
        raise ConfigurationError(f"--{key.lower()}: {value!r} cannot be written into a workflow")
    return json.dumps(value, ensure_ascii=False)


_HEAD = """\
name: update-index

on:
  # A release that a workflow creates with its GITHUB_TOKEN does not trigger this event, so that
  # workflow has to start this one itself.
  release:
    types: [published, edited, unpublished, deleted]
  # Finds changes for which there was no event.
  schedule:
    - cron: "23 */6 * * *"
  workflow_dispatch:

permissions: {}

# Only one run at a time. Of the runs that wait, GitHub keeps only the newest one. That is enough,
# because it finds all changes.
concurrency:
  group: update-index
  cancel-in-progress: false
"""

_INDEX = """
jobs:
  index:
    name: Rebuild the index
    runs-on: ubuntu-latest
    timeout-minutes: 60
    permissions:
      contents: write # to write the index document, and to remove drafts of interrupted uploads
    steps:
      - name: Install private_pypi
        run: |
          python3 -m venv "$RUNNER_TEMP/private_pypi"
          "$RUNNER_TEMP/private_pypi/bin/pip" install --quiet "$REQUIREMENT"
      - name: Rebuild the index
        env:
          GITHUB_TOKEN: ${{ github.token }}
        run: |
          "$RUNNER_TEMP/private_pypi/bin/private_pypi" update_index github "$NAME" \\
            --secret_env GITHUB_TOKEN \\
            --owner "${GITHUB_REPOSITORY%/*}" --repo "${GITHUB_REPOSITORY#*/}" \\
            --index_filename "$INDEX_FILENAME" ${BRANCH:+--branch "$BRANCH"} \\
            --api_url "$GITHUB_API_URL"
"""

_PAGES = """
  # A run for a release belongs to the tag of the release, but the environment github-pages accepts
  # deployments only from the default branch. So this job starts another run there.
  start-pages:
    name: Start the pages
    needs: index
    if: github.event_name == 'release'
    runs-on: ubuntu-latest
    timeout-minutes: 5
    permissions:
      actions: write # to start this workflow
    steps:
      - name: Dispatch this workflow on the default branch
        env:
          GITHUB_TOKEN: ${{ github.token }}
          BODY: '{"ref": ${{ toJSON(github.event.repository.default_branch) }}}'
        run: |
          printf 'header = "Authorization: Bearer %s"\\n' "$GITHUB_TOKEN" |
            curl --silent --show-error --fail-with-body --config - \\
              --header 'Content-Type: application/json' --data "$BODY" \\
              "$GITHUB_API_URL/repos/$GITHUB_REPOSITORY/actions/workflows/update-index.yml/dispatches"

  pages:
    name: Publish the pages
    needs: index
    if: github.event_name != 'release'
    runs-on: ubuntu-latest
    timeout-minutes: 60
    permissions:
      contents: read # to read the index and, in a private repository, the files
      pages: write # to deploy, and to check who may see the site
      id-token: write # proves to GitHub Pages where the deployment comes from
    environment:
      name: github-pages
      url: ${{ steps.deploy.outputs.page_url }}
    steps:
      - name: Install private_pypi
        run: |
          python3 -m venv "$RUNNER_TEMP/private_pypi"
          "$RUNNER_TEMP/private_pypi/bin/pip" install --quiet "$REQUIREMENT"
      - name: Make the pages
        env:
          GITHUB_TOKEN: ${{ github.token }}
        run: |
          "$RUNNER_TEMP/private_pypi/bin/private_pypi" github.gen_gh_pages \\
            --name "$NAME" --token_env GITHUB_TOKEN \\
            --owner "${GITHUB_REPOSITORY%/*}" --repo "${GITHUB_REPOSITORY#*/}" \\
            --index_filename "$INDEX_FILENAME" ${BRANCH:+--branch "$BRANCH"} \\
            --api_url "$GITHUB_API_URL" --output_folder site --for_gh_pages
      - name: Upload the pages
        uses: actions/upload-pages-artifact@fc324d3547104276b827a68afc52ff2a11cc49c9 # v5.0.0
        with:
          path: site
      - name: Deploy the pages
        id: deploy
        uses: actions/deploy-pages@cd2ce8fcbc39b97be8ca5fce6e763baed58fa128 # v5.0.0
"""
