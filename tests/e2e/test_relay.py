from tests.harness.stage import Stage, chat

async def test_x(stage: Stage) -> None:
    fleet = await stage.backends(2)
    proxy = await stage.proxy(*fleet)
    answer = await stage.ask(proxy, chat(), id="one")
    print(answer.head, answer.body)
    print(await proxy.record("one"))
    answer = await stage.ask(proxy, chat(stream=False), id="two")
    print(answer.head, answer.body)
    print(await proxy.record("two"))
