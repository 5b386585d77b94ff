"""The monthly report and the statements: reading the logs, computing the figures, composing the pages."""
