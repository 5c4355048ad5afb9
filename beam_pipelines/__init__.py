"""The data pipelines: from source code to token records, on Apache Beam."""

import logging

# Beam warns at every import where its optional Google Cloud client (`apache-beam[gcp]`) isn't installed.
logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
