"""Files of examples as streams of records: JSON lines, CSV and TSV, CoNLL and CoNLL-U, SQuAD's JSON, plain text;
gzip for all.
"""

from rembert.tasks.reading.formats import FORMATS, read_records
from rembert.tasks.reading.records import BadLine, Place, Record

__all__ = ["FORMATS", "BadLine", "Place", "Record", "read_records"]
