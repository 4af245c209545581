"""The pages: what is said of runs, of a study, of a whole comparison."""
