"""Reports of runs: statistics over seeds, tables, pictures, beside published scores. No TensorFlow is needed."""
