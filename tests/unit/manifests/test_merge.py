"""A podTemplate is merged as Kubernetes' strategic merge patch does it."""

from penstock_operator.manifests.merge import merged

OURS = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [
            {
                "name": "penstock",
                "image": "x",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "args": ["worker"],
            }
        ],
        "tolerations": [{"key": "lost"}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}


def container(theirs):
    return merged(OURS, {"spec": {"containers": [theirs]}})["spec"]["containers"]


def test_a_container_is_changed_by_its_name():
    (found,) = container({"name": "penstock", "imagePullPolicy": "Always"})
    assert (found["image"], found["imagePullPolicy"]) == ("x", "Always")


def test_another_container_stands_beside_ours():
    ours, theirs = container({"name": "proxy", "image": "p"})
    assert (ours["name"], theirs) == ("penstock", {"name": "proxy", "image": "p"})


def test_env_is_merged_by_name_and_keeps_its_order():
    (found,) = container(
        {"name": "penstock", "env": [{"name": "C", "value": "3"}, {"name": "A", "value": "9"}]}
    )
    assert [(e["name"], e["value"]) for e in found["env"]] == [("A", "9"), ("B", "2"), ("C", "3")]


def test_a_value_that_becomes_a_reference_leaves_its_value_when_told():
    theirs = {"name": "A", "value": None, "valueFrom": {"fieldRef": {"fieldPath": "x"}}}
    (found,) = container({"name": "penstock", "env": [theirs]})
    assert found["env"][0] == {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}


def test_mounts_are_merged_by_path_and_volumes_by_name():
    changes = {
        "spec": {
            "containers": [
                {"name": "penstock", "volumeMounts": [{"name": "big", "mountPath": "/big"}]}
            ],
            "volumes": [{"name": "big", "emptyDir": {}}],
        }
    }
    spec = merged(OURS, changes)["spec"]
    assert [m["mountPath"] for m in spec["containers"][0]["volumeMounts"]] == ["/tmp", "/big"]
    assert [v["name"] for v in spec["volumes"]] == ["tmp", "big"]


def test_lists_without_a_key_are_replaced():
    spec = merged(OURS, {"spec": {"tolerations": [{"key": "mine"}]}})["spec"]
    assert spec["tolerations"] == [{"key": "mine"}]
    (found,) = container({"name": "penstock", "args": ["worker", "--log=plain"]})
    assert found["args"] == ["worker", "--log=plain"]


def test_null_takes_a_field_away():
    assert "tolerations" not in merged(OURS, {"spec": {"tolerations": None}})["spec"]


def test_neither_side_is_changed():
    import copy

    before = copy.deepcopy(OURS)
    theirs = {"spec": {"containers": [{"name": "penstock", "env": [{"name": "A", "value": "9"}]}]}}
    theirs_before = copy.deepcopy(theirs)
    merged(OURS, theirs)
    assert (before, theirs_before) == (OURS, theirs)


def test_an_item_without_its_key_is_left_to_the_api_server():
    (found,) = container({"name": "penstock", "env": [{"value": "1"}]})
    assert found["env"] == [{"value": "1"}]
