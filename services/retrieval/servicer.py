"""protobuf <-> domain for the retrieval tier; no logic."""

from __future__ import annotations

import grpc

from memory3.api.retrieval.v1 import retrieval_pb2 as pb
from memory3.api.retrieval.v1 import retrieval_pb2_grpc
from memory3.channel import MAX_MESSAGE_BYTES
from memory3.errors import MessageTooLargeError
from memory3.types import Reference
from services.retrieval.core import RetrievalCore


class EmbeddingServicer(retrieval_pb2_grpc.EmbeddingServiceServicer):
    """EmbeddingService."""

    def __init__(self, core: RetrievalCore) -> None:
        self._core = core

    async def Embed(self, request: pb.EmbedRequest, _: grpc.aio.ServicerContext) -> pb.EmbedResponse:  # noqa: N802
        result = await self._core.embed(list(request.texts))
        return pb.EmbedResponse(
            vectors=result.vectors,
            dimension=result.dimension,
            embedder_id=result.embedder_id,
            timing=result.timing.to_pb(),
        )


class RetrievalServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """RetrievalService."""

    def __init__(self, core: RetrievalCore) -> None:
        self._core = core

    async def Retrieve(self, request: pb.RetrieveRequest, _: grpc.aio.ServicerContext) -> pb.RetrieveResponse:  # noqa: N802
        result = await self._core.retrieve(
            request.bank, list(request.queries), request.top_k, list(request.document_ids)
        )
        response = pb.RetrieveResponse(
            results=[
                pb.QueryResult(hits=[pb.Hit(reference=hit.reference.to_pb(), score=hit.score) for hit in hits])
                for hits in result.results
            ],
            timing=result.timing.to_pb(),
        )
        _check_size(response.ByteSize(), "ask with fewer queries or a smaller top_k")
        return response

    async def Upsert(self, request: pb.UpsertRequest, _: grpc.aio.ServicerContext) -> pb.UpsertResponse:  # noqa: N802
        references = [Reference.from_pb(reference) for reference in request.references]
        result = await self._core.upsert(
            request.bank, request.document_id, request.version, references, last_part=request.last_part
        )
        return pb.UpsertResponse(
            num_references=result.num_references,
            num_removed=result.num_removed,
            orphaned_reference_ids=result.orphaned_reference_ids,
            timing=result.timing.to_pb(),
        )

    async def Delete(self, request: pb.DeleteRequest, _: grpc.aio.ServicerContext) -> pb.DeleteResponse:  # noqa: N802
        result = await self._core.delete(request.bank, list(request.document_ids), whole_bank=request.whole_bank)
        return pb.DeleteResponse(
            num_documents=result.num_documents,
            num_references=result.num_references,
            orphaned_reference_ids=result.orphaned_reference_ids,
        )

    async def GetReferences(  # noqa: N802
        self, request: pb.GetReferencesRequest, _: grpc.aio.ServicerContext
    ) -> pb.GetReferencesResponse:
        references = await self._core.get_references(request.bank, list(request.reference_ids))
        response = pb.GetReferencesResponse(references=[reference.to_pb() for reference in references])
        _check_size(response.ByteSize(), "ask for fewer ids")
        return response

    async def ListDocuments(  # noqa: N802
        self, request: pb.ListDocumentsRequest, _: grpc.aio.ServicerContext
    ) -> pb.ListDocumentsResponse:
        page = await self._core.list_documents(request.bank, request.page_size, request.page_token)
        response = pb.ListDocumentsResponse(
            documents=[document.to_pb() for document in page.documents], next_page_token=page.next_token
        )
        _check_size(response.ByteSize(), "ask for smaller pages")
        return response

    async def ListBanks(self, _: pb.ListBanksRequest, __: grpc.aio.ServicerContext) -> pb.ListBanksResponse:  # noqa: N802
        return pb.ListBanksResponse(banks=[bank.to_pb() for bank in await self._core.list_banks()])

    async def DescribeBank(  # noqa: N802
        self, request: pb.DescribeBankRequest, _: grpc.aio.ServicerContext
    ) -> pb.DescribeBankResponse:
        bank = await self._core.describe_bank(request.bank)
        return pb.DescribeBankResponse(bank=bank.to_pb(), num_documents=bank.num_documents)


def _check_size(size_bytes: int, remedy: str) -> None:
    """Raises MessageTooLargeError for an answer that gRPC would refuse to send, without a typed detail."""
    if size_bytes > MAX_MESSAGE_BYTES:
        raise MessageTooLargeError(
            f"the answer would have {size_bytes} bytes, at most {MAX_MESSAGE_BYTES} fit in a message; {remedy}"
        )
