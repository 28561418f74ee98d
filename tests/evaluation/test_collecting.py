import copy

import torch
from helpers import sgd

from lightning_unlearn.evaluation.collecting import collect_outputs, outputs_of, relearn
from lightning_unlearn.stages import FineTune


def test_outputs_are_the_logits_of_every_sample_once(trained_resnet, make_data, fresh):
    data = make_data(eval_batch_size=40)
    trained_resnet.train()  # evaluation is in eval mode, whatever the model was in
    outputs = outputs_of(fresh, trained_resnet, data)
    trained_resnet.eval()
    for name, part in outputs.parts().items():
        samples, index = data.part(name)
        assert torch.equal(part.index, index)
        assert torch.equal(part.targets, samples.targets[index])
        with torch.no_grad():
            expected = torch.cat([trained_resnet(b.input) for b in data.evaluation_loader(name)])
        torch.testing.assert_close(part.logits, expected)


def test_parts_that_are_asked_for(trained, make_data, fresh):
    assert list(collect_outputs(fresh, trained, make_data(), ["test"])) == ["test"]
    assert outputs_of(fresh, trained, make_data(unseen=0)).unseen is None


def test_evaluation_leaves_the_model_alone(trained_resnet, make_data, fresh):
    before = {name: value.clone() for name, value in trained_resnet.state_dict().items()}
    relearn(fresh, trained_resnet, make_data(), 1, ["forget"])
    outputs_of(fresh, trained_resnet, make_data())
    assert all(torch.equal(value, trained_resnet.state_dict()[name]) for name, value in before.items())
    copy.deepcopy(trained_resnet)  # no Trainer hangs on it


def test_relearning_is_fine_tuning_on_the_retained_samples(trained, make_data, fresh):
    from lightning_unlearn.chain.run import run_chain

    found = relearn(fresh, trained, make_data(), 1, ["forget"])["forget"]
    run_chain(fresh, trained, make_data(), [FineTune(max_epochs=1, optimizer=sgd(0.02, momentum=0.9), cache=False)])
    expected = collect_outputs(fresh, trained, make_data(), ["forget"])["forget"]
    assert torch.equal(found.logits, expected.logits)
