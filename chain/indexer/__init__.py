"""The history of a project: rules of following it, the file it is kept in, and events as they happen."""
