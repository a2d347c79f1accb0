"""The duel: our sampler against Optuna's, on real trainings at equal cost."""
