import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline.rules.role_names import ROLE_NAMES
from optuna_discipline.rules.role_names import can_be
from optuna_discipline.rules.role_names import is_cyclical
from optuna_discipline.rules.role_names import is_small_momentum
from optuna_discipline.rules.role_names import role_of_name
from optuna_discipline.rules.role_names import says_penalty
from optuna_discipline.rules.role_names import says_seed
from optuna_discipline.rules.role_names import without_passes
from optuna_discipline.rules.space import ROLES
from optuna_discipline.rules.space import Bounds


def test_the_usual_names_have_roles() -> None:
    assert {ROLE_NAMES[name] for name in ("lr", "max_lr", "learning_rate", "learning_rate_init")} == {"lr"}
    assert ROLE_NAMES["adam_beta1"] == "momentum"
    assert ROLE_NAMES["l2"] == "weight_decay"
    assert ROLE_NAMES["per_device_train_batch_size"] == "batch_size"
    assert ROLE_NAMES["num_train_epochs"] == "epochs"
    assert all(role_of_name(name) == role for name, role in ROLE_NAMES.items())


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ("LR optimizer.lr optim/lr adam_lr base_lr lr_head lr0 learningRate sgd_opt_learning_rate train:lr", "lr"),
        ("lrate learn_rate blr sgd.eta0 lr1 lr_2 learning_rate_1 actor_lr_1", "lr"),
        ("lr_q lr_pi lr_vf lr_alpha lr_unet lr_text_encoder lr_embed lr_lion lr_muon", "lr"),
        ("sgd_momentum SGDMomentum optimizer.momentum adam_beta_1 beta_1 optim.beta1 mom encoder_beta1", "momentum"),
        ("one_minus_momentum oneMinusBeta1 opt_momentum", "momentum"),
        (
            "weightDecay adamw_weight_decay optimizer/weight_decay head_wd l2_reg dense.l2_regularization",
            "weight_decay",
        ),
        ("weightdecay weight_decay_head wd_encoder l2_lambda lambda_l2 encoder_l2", "weight_decay"),
        ("batchSize BATCH_SIZE data.batch_size mini_batch_size gen_batchsize", "batch_size"),
        ("bs bsz minibatch_size batch_size_train train_micro_batch_size_per_gpu", "batch_size"),
        ("nEpochs trainer.max_epochs training_epochs num_epoch nb_epoch", "epochs"),
    ],
)
def test_groups_optimizers_and_spellings_do_not_hide_a_role(names: str, role: str) -> None:
    assert {name: role_of_name(name) for name in names.split()} == dict.fromkeys(names.split(), role)


@pytest.mark.parametrize(
    "names",
    [
        "min_lr final_lr warmup_lr log_lr lr_decay lr_scheduler lr_gamma lr.gamma",
        "lr_schedule lr_warmup_steps lr_min lr_ratio lr_factor lr_power lr_patience lr_step_size lr_mult head_lr_mult",
        "warmup_lr_init lr_C lr_tol lr_l1 lr_l2 lr_epochs",
        "bn_momentum batch_norm_momentum ema_momentum momentum_decay beta2",
        "moco_momentum moco.momentum key_momentum encoder_momentum momentum_teacher momentum_encoder",
        "weight_decay_schedule weight_decay_end wd_mult weight_decay_bias l2_norm l2_units reg_lambda",
        "eval_batch_size log2_batch_size batch_size_val batch_size_factor",
        "warmup_epochs decay_epochs epochs_without_gain epoch last_epoch width optimizer alpha",
    ],
)
def test_what_only_sounds_like_a_role_has_none(names: str) -> None:
    assert {role_of_name(name) for name in [*names.split(), "", "..", "\u00e9\u00e8"]} == {None}


def test_what_the_user_has_told_comes_first() -> None:
    assert role_of_name("alpha", {"alpha": "weight_decay"}) == "weight_decay"
    assert role_of_name("lr", {"lr": None}) is None
    assert role_of_name("lr", {"alpha": "weight_decay"}) == "lr"


def test_a_beta_and_the_largest_momentum_of_a_cycle_are_cyclical() -> None:
    assert [is_cyclical(name) for name in ("adam_beta_1", "maxMomentum", "opt.max_momentum")] == [True] * 3
    assert [is_cyclical(name) for name in ("momentum", "opt.momentum", "m")] == [False] * 3


@pytest.mark.parametrize("name", ["clip_range", "ppo.clip_eps", "gaeLambda", "ent_coef", "vf_coef", "target_kl"])
def test_beside_names_of_policy_optimisation_epochs_are_passes_over_a_buffer(name: str) -> None:
    assert without_passes({"n_epochs": "epochs", "lr": "lr"}, ["n_epochs", "lr", name]) == {"lr": "lr"}
    assert without_passes({"n_epochs": "epochs"}, ["n_epochs", name], {"n_epochs": "epochs"}) == {"n_epochs": "epochs"}


@pytest.mark.parametrize("name", ["grad_clip", "clip_norm", "n_steps", "coef", "clip"])
def test_beside_other_names_epochs_are_the_length_of_a_training(name: str) -> None:
    assert without_passes({"n_epochs": "epochs"}, ["n_epochs", name]) == {"n_epochs": "epochs"}


def test_a_seed_is_known_by_its_name() -> None:
    names = "seed SEED random_seed randomSeed randomState data.random_state torch_seed train_seed seed1 seed_2"
    assert [name for name in names.split() if not says_seed(name)] == []
    assert {role_of_name(name) for name in names.split()} == {None}
    others = "n_seeds num_seed seeds seed_ratio seedling state random_crop seed.width random lr"
    assert [name for name in others.split() if says_seed(name)] == []


def test_a_penalty_is_known_by_its_name_and_no_weight_of_another_loss_is_one() -> None:
    names = (
        "l1 l1_lambda L1Lambda lambda_l1 l1_reg model.l1_weight l1_coef l2_coeff reg reg_lambda reg_alpha lambda_reg"
    )
    more = "tv_reg orth_reg kernel_regularizer regularization penalty l1_penalty lambda_sparse sparsity_weight"
    assert [name for name in f"{names} {more}".split() if not says_penalty(name)] == []
    others = "aux_weight kl_weight kl_reg entropy_reg alpha lambda_gan n_units_l1 l1_ratio l1_loss_weight smooth_l1"
    more = "sparsity target_sparsity length_penalty log_reg log_l1 regression region lr"
    assert [name for name in ["", *f"{others} {more}".split()] if says_penalty(name)] == []


def test_a_momentum_up_to_a_half_is_small_unless_it_is_a_beta_or_1_less_itself() -> None:
    assert [is_small_momentum("momentum", Bounds(0.0, high)) for high in (0.0, 0.1, 0.5, 0.6)] == [
        False,
        True,
        True,
        False,
    ]
    names = "one_minus_momentum inverseMomentum beta1 adam_beta_1"
    assert not any(is_small_momentum(name, Bounds(0.0, 0.5)) for name in names.split())


def test_bounds_may_rule_a_role_out() -> None:
    assert can_be("lr", Bounds(1e-5, 1.0))
    assert can_be("weight_decay", Bounds(0.0, 0.3))
    assert not can_be("lr", Bounds(-5.0, -1.0))
    assert not can_be("lr", Bounds(1.0, 10.0))
    assert not can_be("momentum", Bounds(1.0, 100.0))
    assert not can_be("batch_size", Bounds(0.1, 0.9))
    assert not can_be("epochs", Bounds(0, 3))


@given(st.text(max_size=30))
def test_any_name_is_read(name: str) -> None:
    assert role_of_name(name) in (*ROLES, None)
