"""The workflow that keeps a package repository's index, as text; it asks nobody.

What differs between repositories stands in its `env` alone, so that no value ever becomes a part
of a command: commands read variables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from private_pypi.errors import ConfigurationError

WORKFLOW_PATH = ".github/workflows/update-index.yml"

MARK = "# Made by `private_pypi github.init_pkg_repo`, which renews it while this line is here.\n"
"""The first line of what may be replaced by a newer text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFacts:
    """What a workflow is told of its repository; the owner's and its own name it knows."""

    name: str  # of the repository in the server's configuration
    requirement: str  # for pip: how this project is installed
    index_filename: str
    branch: str | None  # of the index; None: the default branch
    pages: bool


def workflow_text(facts: WorkflowFacts) -> str:
    """The workflow; raises `ConfigurationError` for a value that cannot stand in one."""
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
    """A double-quoted scalar of YAML, which takes what JSON writes, but for its surrogates."""
    if "${{" in value or not value.isprintable():
        raise ConfigurationError(f"--{key.lower()}: {value!r} cannot stand in a workflow")
    return json.dumps(value, ensure_ascii=False)


_HEAD = """\
name: update-index

on:
  # Releases that a workflow makes with its GITHUB_TOKEN start nothing: such a workflow dispatches
  # this one itself.
  release:
    types: [published, edited, unpublished, deleted]
  # For what no event told of.
  schedule:
    - cron: "23 */6 * * *"
  workflow_dispatch:

permissions: {}

# One at a time; of those that wait the newest is enough, because it sees everything.
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
      contents: write # of the index document, and to remove drafts of uploads that were killed
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
  # A run for a release has the tag as its ref, and the environment of the pages takes deployments
  # from the default branch only: so it starts a run there.
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
      contents: read # of the index, and of the files of a private repository
      pages: write # to deploy, and to see who may read the site
      id-token: write # by which the deployment proves where it comes from
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
