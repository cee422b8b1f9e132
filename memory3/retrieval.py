"""RetrievalClient: references, documents and banks of the retrieval tier. Knows no memory and no model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from memory3.api.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from memory3.channel import ChannelClient, translated
from memory3.security import PLAIN, ChannelSecurity
from memory3.types import (
    Bank,
    DeleteResult,
    Document,
    EmbedResult,
    Reference,
    RetrieveResult,
    UpsertResult,
)


class RetrievalClient(ChannelClient):
    """Typed calls to EmbeddingService and RetrievalService; every call raises memory3.errors.

    `timeout` of each call: seconds, sent along as the call's deadline. Effects, limits and errors: retrieval.proto.
    """

    def __init__(self, target: str, *, retry: bool = True, security: ChannelSecurity = PLAIN) -> None:
        super().__init__(target, retry=retry, security=security)
        self._embedding = retrieval_pb2_grpc.EmbeddingServiceStub(self.channel)
        self._retrieval = retrieval_pb2_grpc.RetrievalServiceStub(self.channel)

    async def embed(self, texts: Sequence[str], *, timeout: float = 30.0) -> EmbedResult:
        """One vector for each text, in order."""
        async with translated(self.target):
            request = retrieval_pb2.EmbedRequest(texts=texts)
            return EmbedResult.from_pb(await self._embedding.Embed(request, timeout=timeout))

    async def retrieve(
        self,
        bank: str,
        queries: Sequence[str],
        top_k: int,
        document_ids: Sequence[str] = (),
        *,
        timeout: float = 10.0,
    ) -> RetrieveResult:
        """The `top_k` references nearest to each query, by falling score; of `document_ids` only, if given."""
        async with translated(self.target):
            request = retrieval_pb2.RetrieveRequest(bank=bank, queries=queries, top_k=top_k, document_ids=document_ids)
            return RetrieveResult.from_pb(await self._retrieval.Retrieve(request, timeout=timeout))

    async def upsert(
        self,
        bank: str,
        document_id: str,
        version: str,
        references: Sequence[Reference],
        *,
        last_part: bool = True,
        timeout: float = 120.0,
    ) -> UpsertResult:
        """Add or replace a document, or one part of it; other versions go with the last part."""
        async with translated(self.target):
            request = retrieval_pb2.UpsertRequest(
                bank=bank,
                document_id=document_id,
                version=version,
                references=[reference.to_pb() for reference in references],
                last_part=last_part,
            )
            return UpsertResult.from_pb(await self._retrieval.Upsert(request, timeout=timeout))

    async def delete(
        self, bank: str, document_ids: Sequence[str] = (), *, whole_bank: bool = False, timeout: float = 120.0
    ) -> DeleteResult:
        """Remove documents, or the whole bank, from the index; their memories stay (see Client.delete_documents)."""
        async with translated(self.target):
            request = retrieval_pb2.DeleteRequest(bank=bank, document_ids=document_ids, whole_bank=whole_bank)
            return DeleteResult.from_pb(await self._retrieval.Delete(request, timeout=timeout))

    async def get_references(
        self, bank: str, reference_ids: Sequence[str], *, timeout: float = 10.0
    ) -> list[Reference]:
        """The references that exist, in the order of the ids; one that several documents hold comes once for each."""
        async with translated(self.target):
            request = retrieval_pb2.GetReferencesRequest(bank=bank, reference_ids=reference_ids)
            response = await self._retrieval.GetReferences(request, timeout=timeout)
            return [Reference.from_pb(reference) for reference in response.references]

    async def list_documents(
        self, bank: str, page_size: int = 1000, *, timeout: float = 30.0
    ) -> AsyncGenerator[Document, None]:
        """All documents of the bank by id, fetched page by page; `timeout` holds for each page."""
        token = ""
        while True:
            async with translated(self.target):
                request = retrieval_pb2.ListDocumentsRequest(bank=bank, page_size=page_size, page_token=token)
                response = await self._retrieval.ListDocuments(request, timeout=timeout)
            for document in response.documents:
                yield Document.from_pb(document)
            token = response.next_page_token
            if not token:
                return

    async def list_banks(self, *, timeout: float = 30.0) -> list[Bank]:
        """All banks by name."""
        async with translated(self.target):
            response = await self._retrieval.ListBanks(retrieval_pb2.ListBanksRequest(), timeout=timeout)
            return [Bank.from_pb(bank) for bank in response.banks]

    async def describe_bank(self, bank: str, *, timeout: float = 30.0) -> Bank:
        """One bank, with its number of documents."""
        async with translated(self.target):
            request = retrieval_pb2.DescribeBankRequest(bank=bank)
            response = await self._retrieval.DescribeBank(request, timeout=timeout)
            return Bank.from_pb(response.bank, response.num_documents)
