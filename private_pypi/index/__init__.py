"""The index of a repository: its document in the storage, and its copy in ROOT."""
